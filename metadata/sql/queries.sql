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
-- parent and name of the claims.
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
SELECT workspace_id, node_id, parent_id, name, kind, version, deleted, mode, mtime_ns, size_bytes, content_version,
    target, mounted_workspace_id, xattrs
FROM found JOIN nodes USING (workspace_id, node_id);

-- find_manifests --
-- Content that splices, copies and revivals are written against. $1: workspace ids, $2: node ids, $3: versions.
SELECT workspace_id, node_id, version, manifest
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS wanted (workspace_id, node_id, version)
JOIN versions USING (workspace_id, node_id, version);

-- find_usable_chunks --
-- Of the chunks that commits name, those that their authors may use now: readable in a workspace of theirs, or
-- uploaded by them and not expired. Locked, so that none is collected before the commit refers to it.
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
