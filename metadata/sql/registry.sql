-- The queries of metadata/registry.py (accounts, devices, workspaces, staged bodies, desired broker state)
-- and of metadata/catch_up.py (what a device reads to follow a journal).

-- add_user --
-- One person more; no row comes back when the address is taken.
INSERT INTO users (user_id, email, password_hash, quota_bytes)
VALUES ($1, $2, $3, $4)
ON CONFLICT (email) DO NOTHING
RETURNING user_id;

-- user_by_email --
SELECT user_id, email, password_hash FROM users WHERE email = $1;

-- list_users --
SELECT u.user_id, u.email, u.quota_bytes, u.used_bytes, u.created_at,
       (SELECT count(*) FROM devices d WHERE d.user_id = u.user_id AND d.revoked_at IS NULL) AS devices
FROM users u ORDER BY u.email;

-- lock_device_names --
-- One at a time names a device of a user: two of them would take the same name.
SELECT pg_advisory_xact_lock(hashtextextended('hutch device names ' || $1::uuid::text, 0));

-- add_device --
-- Desired broker state from now on: a user, a queue, its bindings.
INSERT INTO devices (device_id, user_id, name, secret_hash, broker_password_hash, queue_name, seen_at)
VALUES ($1, $2, $3, $4, $5, $6, now());

-- device_for_credential --
SELECT d.device_id, d.user_id, u.email, d.name, d.secret_hash, d.queue_name,
       d.revoked_at IS NOT NULL AS revoked,
       d.seen_at IS NULL OR d.seen_at < now() - interval '1 minute' AS unseen
FROM devices d JOIN users u USING (user_id) WHERE d.device_id = $1;

-- mark_seen --
UPDATE devices SET seen_at = now() WHERE device_id = $1;

-- list_devices --
SELECT device_id, name, created_at, seen_at
FROM devices WHERE user_id = $1 AND revoked_at IS NULL ORDER BY created_at, device_id;

-- revoke_device --
-- Cut off for good, and its staged bodies and held commits with it. $2 is the user whose it must be; NULL: anyone's.
-- The row's lock is the one that stage_body takes: no body slips in behind the revocation.
WITH revoked AS (
    UPDATE devices SET revoked_at = coalesce(revoked_at, now())
    WHERE device_id = $1 AND ($2::uuid IS NULL OR user_id = $2)
    RETURNING device_id
), dropped AS (
    DELETE FROM staged_bodies USING revoked WHERE staged_bodies.device_id = revoked.device_id
), released AS (
    DELETE FROM holds USING revoked WHERE holds.device_id = revoked.device_id
)
SELECT device_id FROM revoked;

-- workspaces_of_user --
SELECT w.workspace_id, w.name, m.role, o.email AS owner, w.epoch, w.head_seq, w.head_chain
FROM workspace_members m
JOIN workspaces w USING (workspace_id)
JOIN users o ON o.user_id = w.owner_id
WHERE m.user_id = $1
ORDER BY w.created_at, w.workspace_id;

-- workspace_of_member --
-- No row: there is no such workspace, or the user is no member of it. The two look the same.
SELECT w.workspace_id, w.name, m.role, o.email AS owner, w.epoch, w.head_seq, w.head_chain
FROM workspace_members m
JOIN workspaces w USING (workspace_id)
JOIN users o ON o.user_id = w.owner_id
WHERE m.workspace_id = $1 AND m.user_id = $2;

-- add_workspace --
-- No row comes back when the owner has one of that name.
INSERT INTO workspaces (workspace_id, owner_id, name, head_chain)
VALUES ($1, $2, $3, $4)
ON CONFLICT (owner_id, name) DO NOTHING
RETURNING workspace_id;

-- start_epoch --
UPDATE workspaces SET epoch = epoch + 1;

-- add_owner --
INSERT INTO workspace_members (workspace_id, user_id, role) VALUES ($1, $2, 'owner');

-- own_workspace --
SELECT workspace_id FROM workspaces WHERE owner_id = $1 AND name = $2;

-- member_devices --
-- The live devices of a workspace's members.
SELECT d.device_id, d.queue_name
FROM workspace_members m JOIN devices d USING (user_id)
WHERE m.workspace_id = $1 AND d.revoked_at IS NULL ORDER BY d.device_id;

-- lock_device --
-- No row: revoked meanwhile.
SELECT device_id FROM devices WHERE device_id = $1 AND revoked_at IS NULL FOR UPDATE;

-- staged_size --
-- What a device has staged beside the body that comes now.
SELECT coalesce(sum(octet_length(body)), 0)::bigint FROM staged_bodies WHERE device_id = $1 AND hash <> $2;

-- stage_body --
INSERT INTO staged_bodies (device_id, hash, body) VALUES ($1, $2, $3)
ON CONFLICT (device_id, hash) DO UPDATE SET staged_at = now();

-- sweep_staged_bodies --
DELETE FROM staged_bodies WHERE staged_at < now() - interval '1 day';

-- sweep_chunk_proofs --
DELETE FROM chunk_proofs WHERE expires_at < now();

-- sweep_touches --
-- No guard looks back further (`metadata.state.MAX_GUARD_WINDOW`).
DELETE FROM touches WHERE touched_at < now() - interval '1 day';

-- sweep_holds --
-- Accepted, and not made use of in time.
DELETE FROM holds WHERE expires_at < now();

-- list_holds --
-- What is held of a user's devices in a workspace. $1: workspace, $2: user.
SELECT h.hold_id, h.workspace_id, h.device_id, d.name AS device_name, d.queue_name, h.verdict, h.deleted, h.rewritten,
       h.to_follow, h.recent, h.deleted_paths, h.rewritten_paths, h.held_at
FROM holds h JOIN devices d USING (device_id)
WHERE h.workspace_id = $1 AND d.user_id = $2 AND d.revoked_at IS NULL
    AND (h.expires_at IS NULL OR h.expires_at > now())
ORDER BY h.held_at, h.device_id;

-- lock_workspace --
-- The lock of the commit: what is decided of a hold under it is not overwritten by a request that is just being held.
SELECT FROM workspaces WHERE workspace_id = $1 FOR NO KEY UPDATE;

-- accept_hold --
-- The device may do as much as was held, within a day; what it has done before is forgotten. $1: the hold's id.
WITH accepted AS (
    UPDATE holds
    SET verdict = 'accepted', allowed = deleted + rewritten + to_follow, expires_at = now() + interval '1 day'
    WHERE hold_id = $1 AND verdict = 'held'
    RETURNING workspace_id, device_id
)
DELETE FROM touches USING accepted
WHERE touches.workspace_id = accepted.workspace_id AND touches.device_id = accepted.device_id;

-- undo_hold --
-- The device is to take back what was held. $1: the hold's id.
UPDATE holds SET verdict = 'undone', allowed = 0, expires_at = NULL WHERE hold_id = $1;

-- release_hold --
-- The device has taken back what was held. $1: the hold's id, $2: the device.
DELETE FROM holds WHERE hold_id = $1 AND device_id = $2 AND verdict = 'undone';

-- lock_device_state --
-- One at a time follows a device's broker state, over all processes: a stale reader must not undo a newer one.
SELECT pg_advisory_xact_lock(hashtextextended('hutch device ' || $1::uuid::text, 0));

-- try_lock_comparison --
-- One process at a time compares the whole broker with the desired state.
SELECT pg_try_advisory_xact_lock(hashtextextended('hutch broker comparison', 0));

-- desired_devices --
-- What the broker should hold, revoked devices included (nothing of theirs). $1: these alone; NULL: all.
SELECT d.device_id, d.queue_name, d.broker_password_hash, d.revoked_at IS NOT NULL AS revoked,
       coalesce((SELECT array_agg(m.workspace_id ORDER BY m.workspace_id)
                 FROM workspace_members m WHERE m.user_id = d.user_id), '{}') AS workspace_ids
FROM devices d WHERE $1::uuid[] IS NULL OR d.device_id = ANY ($1);

-- replace_queue --
UPDATE devices SET queue_name = $2 WHERE device_id = $1 AND revoked_at IS NULL;

-- journal_chain --
SELECT chain FROM journal WHERE workspace_id = $1 AND seq = $2;

-- changes_page --
-- Entries after $2 and up to $3: as many as fit $4 bytes, but at least one.
SELECT j.seq, j.entry
FROM (
    SELECT seq, sum(octet_length(entry)) OVER (ORDER BY seq) AS total_bytes
    FROM (SELECT seq, entry FROM journal
          WHERE workspace_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT 512) near
) page
JOIN journal j ON j.workspace_id = $1 AND j.seq = page.seq
WHERE page.total_bytes <= $4 OR page.seq = $2::bigint + 1
ORDER BY j.seq;

-- snapshot_head --
SELECT w.epoch, w.head_seq, w.head_chain,
       (SELECT count(*) FROM nodes n WHERE n.workspace_id = w.workspace_id AND NOT n.deleted) AS live
FROM workspaces w WHERE w.workspace_id = $1;

-- snapshot_nodes --
-- All live nodes, by depth, so that parents come first. The outer join skips nothing live, whatever its parent is.
-- A manifest larger than $2 bytes is left out here, and said so by its size: it is read alone.
WITH RECURSIVE tree (node_id, depth) AS (
    SELECT node_id, 0 FROM nodes
    WHERE workspace_id = $1 AND parent_id = '00000000-0000-0000-0000-000000000000' AND NOT deleted
    UNION ALL
    SELECT n.node_id, tree.depth + 1
    FROM tree JOIN nodes n ON n.workspace_id = $1 AND n.parent_id = tree.node_id AND NOT n.deleted
)
SELECT near.*,
       (SELECT CASE WHEN octet_length(v.manifest) <= $2 THEN v.manifest END FROM versions v
        WHERE v.workspace_id = $1 AND v.node_id = near.node_id AND v.version = near.content_version) AS manifest
FROM (
    SELECT n.node_id, n.parent_id, n.name, n.kind, n.version, n.mode, n.mtime_ns, n.target,
           n.content_version, n.mounted_workspace_id, n.xattrs
    FROM nodes n LEFT JOIN tree USING (node_id)
    WHERE n.workspace_id = $1 AND NOT n.deleted
    ORDER BY tree.depth NULLS LAST
    OFFSET 0
) near;

-- manifest --
SELECT manifest FROM versions WHERE workspace_id = $1 AND node_id = $2 AND version = $3;

-- count_deleted --
SELECT count(*) FROM nodes n WHERE workspace_id = $1 AND deleted AND (kind <> 'file' OR EXISTS (
    SELECT FROM versions v WHERE v.workspace_id = n.workspace_id AND v.node_id = n.node_id));

-- deleted_nodes --
-- Tombstones by which an old copy of what they were can be known: files whose content is kept, and all else.
-- The two columns at the end are what `_stream` asks of each of its queries.
SELECT node_id, parent_id, name, kind, version, target, NULL::bigint AS content_version, NULL::bytea AS manifest
FROM nodes n WHERE workspace_id = $1 AND deleted AND (kind <> 'file' OR EXISTS (
    SELECT FROM versions v WHERE v.workspace_id = n.workspace_id AND v.node_id = n.node_id))
ORDER BY version DESC;

-- count_versions --
SELECT count(*) FROM versions WHERE workspace_id = $1 AND node_id = ANY ($2::uuid[]);

-- retained_versions --
SELECT node_id, version, digest, content_version, manifest FROM (
    SELECT node_id, version, digest, version AS content_version,
           CASE WHEN octet_length(manifest) <= $3 THEN manifest END AS manifest
    FROM versions WHERE workspace_id = $1 AND node_id = ANY ($2::uuid[])
) kept
ORDER BY node_id, version;
