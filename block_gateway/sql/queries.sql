-- authorize --
-- Who calls, and what they may do in the workspace: no row for a credential that is not (or no more) valid, a NULL
-- role for a workspace that they are no member of. $1 device, $2 SHA-256 of its secret, $3 workspace.
SELECT devices.user_id, members.role
FROM devices
LEFT JOIN workspace_members AS members ON members.user_id = devices.user_id AND members.workspace_id = $3
WHERE devices.device_id = $1 AND devices.secret_hash = $2 AND devices.revoked_at IS NULL;

-- index_pack --
-- Make a durable pack known, all of it or nothing, if the author may still write. Repeating it changes nothing.
-- A chunk that is known already keeps its older place; the proof is given all the same, so nobody can tell.
-- Hashes come in order: two uploads of the same chunks must not wait for each other crosswise.
-- $1 device, $2 its secret's hash, $3 workspace, $4 pack, $5 size, $6 lease; $7 to $11 the chunks' columns.
WITH author AS (
    SELECT devices.user_id
    FROM devices
    JOIN workspace_members AS members USING (user_id)
    WHERE devices.device_id = $1 AND devices.secret_hash = $2 AND devices.revoked_at IS NULL
      AND members.workspace_id = $3 AND members.role IN ('editor', 'owner')
), pack AS (
    INSERT INTO packs (pack_id, size_bytes)
    SELECT $4::uuid, $5::bigint FROM author
    ON CONFLICT (pack_id) DO UPDATE SET size_bytes = excluded.size_bytes
    RETURNING pack_id
), known AS (
    INSERT INTO chunks (hash, pack_id, pack_offset, stored_bytes, raw_bytes, codec)
    SELECT sent.hash, pack.pack_id, sent.pack_offset, sent.stored_bytes, sent.raw_bytes, sent.codec
    FROM pack, unnest($7::bytea[], $8::bigint[], $9::integer[], $10::integer[], $11::smallint[])
        AS sent (hash, pack_offset, stored_bytes, raw_bytes, codec)
    ON CONFLICT (hash) DO NOTHING
), proven AS (
    INSERT INTO chunk_proofs (user_id, hash, expires_at)
    SELECT author.user_id, sent.hash, now() + $6::interval
    FROM author, unnest($7::bytea[]) AS sent (hash)
    ON CONFLICT (user_id, hash) DO UPDATE SET expires_at = greatest(chunk_proofs.expires_at, excluded.expires_at)
)
SELECT count(*) FROM pack;

-- find_usable --
-- Which of the chunks the user may use in the workspace without sending them: it has them, another workspace of the
-- user's has them, or a proof of the user's says so. Each is given a lease, so that it stays usable until the commit
-- (whatever happens to the other workspace meanwhile: its bytes could have been read there now).
-- $1 user, $2 workspace, $3 hashes, $4 lease.
WITH usable AS (
    SELECT chunks.hash
    FROM chunks
    WHERE chunks.hash = ANY ($3::bytea[])
      AND (EXISTS (SELECT FROM workspace_chunks AS here
                   WHERE here.workspace_id = $2 AND here.hash = chunks.hash)
           OR EXISTS (SELECT FROM chunk_proofs AS proofs
                      WHERE proofs.user_id = $1 AND proofs.hash = chunks.hash AND proofs.expires_at > now())
           OR EXISTS (SELECT FROM workspace_members AS members
                      JOIN workspace_chunks AS elsewhere USING (workspace_id)
                      WHERE members.user_id = $1 AND elsewhere.hash = chunks.hash))
), renewed AS (
    INSERT INTO chunk_proofs (user_id, hash, expires_at)
    SELECT $1::uuid, usable.hash, now() + $4::interval FROM usable ORDER BY usable.hash
    ON CONFLICT (user_id, hash) DO UPDATE SET expires_at = greatest(chunk_proofs.expires_at, excluded.expires_at)
)
SELECT hash FROM usable;

-- locate_chunks --
-- Where the chunks lie that the user may read through the workspace: it has them, or the user has proven them.
-- $1 user, $2 workspace, $3 hashes.
SELECT chunks.hash, chunks.pack_id, chunks.pack_offset, chunks.stored_bytes, chunks.raw_bytes, chunks.codec
FROM chunks
WHERE chunks.hash = ANY ($3::bytea[])
  AND (EXISTS (SELECT FROM workspace_chunks AS here
               WHERE here.workspace_id = $2 AND here.hash = chunks.hash)
       OR EXISTS (SELECT FROM chunk_proofs AS proofs
                  WHERE proofs.user_id = $1 AND proofs.hash = chunks.hash AND proofs.expires_at > now()));

-- ping --
-- Does PostgreSQL answer?
SELECT 1;
