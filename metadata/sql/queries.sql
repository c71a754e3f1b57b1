-- The queries of the commit, in the order in which metadata/store.py runs them, all in one transaction.
-- Each takes arrays, so that their number does not depend on how many requests a batch has.

-- find_authors --
-- Who the senders are. $1: device ids.
SELECT device_id, user_id, queue_name, revoked_at IS NOT NULL AS revoked
FROM devices
WHERE device_id = ANY ($1::uuid[]);

-- find_staged_bodies --
-- Bodies that were too large for a message. $1: device ids, $2: hashes.
SELECT device_id, hash, body
FROM unnest($1::uuid[], $2::bytea[]) AS wanted (device_id, hash)
JOIN staged_bodies USING (device_id, hash);

-- lock_workspaces --
-- The lock that gives the sequence, in id order so that workers never wait for each other in a ring. $1: workspace ids.
SELECT workspace_id, owner_id, epoch, head_seq, head_chain
FROM workspaces
WHERE workspace_id = ANY ($1::uuid[])
ORDER BY workspace_id
FOR NO KEY UPDATE;

-- lock_owners --
-- Whose quota it counts for; locked after the workspaces, in id order. $1: user ids.
SELECT user_id, quota_bytes, used_bytes
FROM users
WHERE user_id = ANY ($1::uuid[])
ORDER BY user_id
FOR NO KEY UPDATE;

-- read_clock --
-- The database's clock, once the locks are held: the journal's times follow its order.
SELECT clock_timestamp();

-- find_roles --
-- What the authors may do, in the requests' workspaces and in those that they mount; and how many members there are.
-- A statement of its own after the locks: what it sees is what stands while they are held.
-- $1: workspace ids, $2: user ids.
SELECT workspace_id, user_id, role, members
FROM (
    SELECT workspace_id, user_id, role, count(*) OVER (PARTITION BY workspace_id) AS members
    FROM workspace_members
    WHERE workspace_id = ANY ($1::uuid[])
) AS everyone
WHERE user_id = ANY ($2::uuid[]);

-- find_answers --
-- The last number and outcome of each incarnation, with the journal's entry if that is the very number asked for.
-- $1: workspace ids, $2: device ids, $3: incarnations, $4: numbers.
SELECT last.workspace_id, last.device_id, last.incarnation, last.number, last.refusal, last.seq, done.chain, done.entry
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[])
    AS wanted (workspace_id, device_id, incarnation, number)
JOIN requests AS last USING (workspace_id, device_id, incarnation)
LEFT JOIN journal AS done
    ON done.workspace_id = last.workspace_id AND done.seq = last.seq AND last.number = wanted.number;

-- find_chains --
-- The chain where each request's cursor stands. $1: workspace ids, $2: sequences.
SELECT workspace_id, seq, chain
FROM unnest($1::uuid[], $2::bigint[]) AS wanted (workspace_id, seq)
JOIN journal USING (workspace_id, seq);

-- find_nodes --
-- All nodes that the operations touch, with their ancestors; who lives under the names that they claim; and what is
-- live below what they delete. $1, $2: workspace and node of the touched; $3, $4: of the tops; $5, $6, $7: workspace,
-- parent and name of the claims; $8: when the guard's window began: what was made since is young.
WITH RECURSIVE up (workspace_id, node_id) AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[])
    UNION
    SELECT n.workspace_id, n.parent_id
    FROM up JOIN nodes AS n USING (workspace_id, node_id)
),
down (workspace_id, node_id) AS (
    SELECT * FROM unnest($3::uuid[], $4::uuid[])
    UNION
    SELECT n.workspace_id, n.node_id
    FROM down JOIN nodes AS n ON n.workspace_id = down.workspace_id AND n.parent_id = down.node_id
    WHERE NOT n.deleted
),
found (workspace_id, node_id) AS (
    SELECT * FROM up
    UNION
    SELECT * FROM down
    UNION
    SELECT n.workspace_id, n.node_id
    FROM unnest($5::uuid[], $6::uuid[], $7::text[]) AS claim (workspace_id, parent_id, name)
    JOIN nodes AS n USING (workspace_id, parent_id, name)
    WHERE NOT n.deleted
)
SELECT made_at > $8::timestamptz AS young, workspace_id, node_id, parent_id, name, kind, version, deleted, mode, mtime_ns,
    size_bytes, content_version, target, mounted_workspace_id, xattrs
FROM found JOIN nodes USING (workspace_id, node_id);

-- find_guard --
-- What the guard has of each author in each workspace: a hold, if there is one; how many old nodes it has touched
-- within the window; and which of the batch's nodes are among those. $1, $2: workspace and device of the authors;
-- $3, $4: workspace and node of what the batch may touch; $5: when the window began.
SELECT author.workspace_id, author.device_id, h.hold_id, h.verdict, h.digest, h.allowed,
    (SELECT count(*) FROM touches AS t
     WHERE t.workspace_id = author.workspace_id AND t.device_id = author.device_id AND t.touched_at > $5::timestamptz)
        AS touched,
    ARRAY(SELECT t.node_id
          FROM unnest($3::uuid[], $4::uuid[]) AS may (workspace_id, node_id)
          JOIN touches AS t USING (workspace_id, node_id)
          WHERE may.workspace_id = author.workspace_id AND t.device_id = author.device_id
              AND t.touched_at > $5::timestamptz) AS counted
FROM unnest($1::uuid[], $2::uuid[]) AS author (workspace_id, device_id)
LEFT JOIN holds AS h ON h.workspace_id = author.workspace_id AND h.device_id = author.device_id
    AND (h.expires_at IS NULL OR h.expires_at > now());

-- count_standing --
-- How many old nodes a workspace had when the window began, but for what others have deleted since: those that live,
-- and, should those not be enough to decide, those that the author has deleted. $1, $2: workspace and device of the
-- authors; $3: how many are enough; $4: when the window began.
SELECT author.workspace_id, author.device_id, CASE WHEN living.nodes >= author.enough THEN living.nodes ELSE living.nodes + (
    -- Each touched node by its key: told to join, the planner would read all nodes of the workspace first.
    SELECT count(*) FROM touches AS t
    WHERE t.workspace_id = author.workspace_id AND t.device_id = author.device_id AND t.touched_at > $4::timestamptz
        AND (SELECT n.deleted FROM nodes AS n WHERE n.workspace_id = author.workspace_id AND n.node_id = t.node_id)
) END AS standing
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS author (workspace_id, device_id, enough)
CROSS JOIN LATERAL (
    SELECT count(*) AS nodes FROM (
        SELECT FROM nodes AS n
        WHERE n.workspace_id = author.workspace_id AND NOT n.deleted AND n.made_at <= $4::timestamptz
        LIMIT author.enough) AS few
) AS living;

-- find_manifests --
-- Content that splices, copies and revivals are written against. $1: workspace ids, $2: node ids, $3: versions.
SELECT workspace_id, node_id, version, manifest
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS wanted (workspace_id, node_id, version)
JOIN versions USING (workspace_id, node_id, version);

-- find_usable_chunks --
-- Of the chunks that commits name, those that their authors may use now: readable in a workspace of theirs, uploaded
-- by them and not expired, or named in a commit of theirs that is held. Locked, so that none is collected before the commit refers to it.
-- The LIMITs keep each look-up on its index, whatever the tables' sizes. $1: user ids, $2: hashes.
SELECT wanted.user_id, c.hash, c.raw_bytes
FROM unnest($1::uuid[], $2::bytea[]) AS wanted (user_id, hash)
JOIN chunks AS c USING (hash)
WHERE coalesce(
    (SELECT true FROM chunk_proofs AS p
     WHERE p.user_id = wanted.user_id AND p.hash = wanted.hash AND p.expires_at > now() LIMIT 1),
    (SELECT true FROM workspace_members AS m
     JOIN workspace_chunks AS w ON w.workspace_id = m.workspace_id AND w.hash = wanted.hash
     WHERE m.user_id = wanted.user_id LIMIT 1),
    (SELECT true FROM hold_chunks AS h JOIN devices AS d USING (device_id)
     WHERE h.hash = wanted.hash AND d.user_id = wanted.user_id LIMIT 1),
    false)
ORDER BY c.hash
FOR KEY SHARE OF c;

-- advance_heads --
-- $1: workspace ids, $2: new sequences, $3: new chains.
UPDATE workspaces AS w
SET head_seq = new.seq, head_chain = new.chain
FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS new (workspace_id, seq, chain)
WHERE w.workspace_id = new.workspace_id;

-- write_journal --
-- $1: workspace ids, $2: sequences, $3: chains, $4: entries.
INSERT INTO journal (workspace_id, seq, chain, entry)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bytea[]);

-- write_nodes --
-- New nodes, and all columns of changed ones. $1 to $14: the columns, in the order of `nodes`.
INSERT INTO nodes (workspace_id, node_id, parent_id, name, kind, version, deleted, mode, mtime_ns, size_bytes,
    content_version, target, mounted_workspace_id, xattrs)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::boolean[],
    $8::integer[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::uuid[], $14::bytea[])
ON CONFLICT (workspace_id, node_id) DO UPDATE
SET parent_id = excluded.parent_id, name = excluded.name, version = excluded.version, deleted = excluded.deleted,
    mode = excluded.mode, mtime_ns = excluded.mtime_ns, size_bytes = excluded.size_bytes,
    content_version = excluded.content_version, target = excluded.target, xattrs = excluded.xattrs;

-- write_versions --
-- History. $1 to $11: the columns, in the order of `versions`.
INSERT INTO versions (workspace_id, node_id, version, manifest, digest, size_bytes, mtime_ns, mode, user_id, device_id,
    committed_at)
SELECT *, $11::timestamptz
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[],
    $8::integer[], $9::uuid[], $10::uuid[]);

-- grant_chunks --
-- The workspaces may use from now on what was committed to them. $1: workspace ids, $2: hashes.
INSERT INTO workspace_chunks (workspace_id, hash)
SELECT * FROM unnest($1::uuid[], $2::bytea[])
ON CONFLICT DO NOTHING;

-- add_used_bytes --
-- $1: user ids, $2: what is added (or taken away).
UPDATE users AS u
SET used_bytes = u.used_bytes + more.bytes
FROM unnest($1::uuid[], $2::bigint[]) AS more (user_id, bytes)
WHERE u.user_id = more.user_id;

-- write_touches --
-- Old nodes that were deleted or given other content. $1, $2, $3: workspaces, devices and nodes.
INSERT INTO touches (workspace_id, device_id, node_id)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[])
ON CONFLICT (workspace_id, device_id, node_id) DO UPDATE SET touched_at = excluded.touched_at;

-- write_holds --
-- Held commits, each in the place of what was held of its author before. $1 to $11: columns of `holds`; the paths of
-- one commit come as one text, joined by two slashes, which no path has.
INSERT INTO holds (workspace_id, device_id, hold_id, verdict, digest, request, deleted, rewritten, to_follow, recent,
    deleted_paths, rewritten_paths, held_at)
SELECT workspace_id, device_id, hold_id, 'held', digest, request, deleted, rewritten, to_follow, recent,
    string_to_array(deleted_paths, '//'), string_to_array(rewritten_paths, '//'), clock_timestamp()
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::text[], $11::text[])
    AS new (workspace_id, device_id, hold_id, digest, request, deleted, rewritten, to_follow, recent, deleted_paths,
        rewritten_paths)
ON CONFLICT (workspace_id, device_id) DO UPDATE
SET hold_id = excluded.hold_id, verdict = excluded.verdict, digest = excluded.digest, request = excluded.request,
    deleted = excluded.deleted, rewritten = excluded.rewritten, to_follow = excluded.to_follow,
    recent = excluded.recent, deleted_paths = excluded.deleted_paths, rewritten_paths = excluded.rewritten_paths,
    held_at = excluded.held_at, allowed = 0, expires_at = NULL;

-- drop_hold_chunks --
-- What a replaced commit has named is pinned no more. $1, $2: workspaces and devices.
DELETE FROM hold_chunks AS h
USING unnest($1::uuid[], $2::uuid[]) AS held (workspace_id, device_id)
WHERE h.workspace_id = held.workspace_id AND h.device_id = held.device_id;

-- write_hold_chunks --
-- $1, $2, $3: workspaces, devices and hashes.
INSERT INTO hold_chunks (workspace_id, device_id, hash)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]);

-- use_allowances --
-- What is left of what was accepted; when that is nothing, the hold is done with. $1, $2, $3: workspaces, devices and
-- what is left.
WITH used AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS used (workspace_id, device_id, allowed)
), done AS (
    DELETE FROM holds AS h USING used
    WHERE h.workspace_id = used.workspace_id AND h.device_id = used.device_id AND used.allowed = 0
)
UPDATE holds AS h SET allowed = used.allowed
FROM used
WHERE h.workspace_id = used.workspace_id AND h.device_id = used.device_id AND used.allowed > 0;

-- write_answers --
-- The last number and outcome of each incarnation. $1: workspace ids, $2: device ids, $3: incarnations, $4: numbers,
-- $5: sequences or NULL, $6: refusals or NULL, $7: which worker.
INSERT INTO requests (workspace_id, device_id, incarnation, number, seq, refusal, answered_by, answered_at)
SELECT workspace_id, device_id, incarnation, number, seq, refusal, $7, clock_timestamp()
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bytea[])
    AS new (workspace_id, device_id, incarnation, number, seq, refusal)
ON CONFLICT (workspace_id, device_id, incarnation) DO UPDATE
SET number = excluded.number, seq = excluded.seq, refusal = excluded.refusal, answered_by = excluded.answered_by,
    answered_at = excluded.answered_at;

-- drop_staged_bodies --
-- Their requests are answered, and the answers are kept. $1: device ids, $2: hashes.
DELETE FROM staged_bodies AS s
USING unnest($1::uuid[], $2::bytea[]) AS done (device_id, hash)
WHERE s.device_id = done.device_id AND s.hash = done.hash;
