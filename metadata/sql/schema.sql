-- The newest shape of the database: what all migrations make together (a test holds the two to that).
-- Every table of a workspace leads its primary key with workspace_id: the key by which a cluster would shard.
-- Times are timestamptz by the database's own clock; sizes are bytes; hashes are 32 bytes of SHA-256.

CREATE TABLE schema_version (
    version     integer PRIMARY KEY,            -- number of an applied migration
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- A person. The password's hash is argon2id in its own text form.
CREATE TABLE users (
    user_id         uuid PRIMARY KEY,
    email           text NOT NULL UNIQUE,       -- folded to lower case
    password_hash   text NOT NULL,
    quota_bytes     bigint CHECK (quota_bytes >= 0),        -- NULL: none
    used_bytes      bigint NOT NULL DEFAULT 0,  -- sum of the live files' sizes in the workspaces owned
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- A linked device. Its secret is random (256 bits), so a plain SHA-256 of it is enough.
-- queue_name and broker_password_hash are desired broker state: the broker can be rebuilt from them.
CREATE TABLE devices (
    device_id               uuid PRIMARY KEY,   -- also the name of its broker user
    user_id                 uuid NOT NULL REFERENCES users,
    name                    text NOT NULL,      -- as its owner calls it; shown in conflict copies
    secret_hash             bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    broker_password_hash    text NOT NULL,      -- in RabbitMQ's salted SHA-256 form
    queue_name              text NOT NULL UNIQUE,
    created_at              timestamptz NOT NULL DEFAULT now(),
    seen_at                 timestamptz,
    revoked_at              timestamptz         -- set: cut off everywhere, for good
);
CREATE INDEX devices_user ON devices (user_id);

CREATE TABLE workspaces (
    workspace_id    uuid PRIMARY KEY,
    owner_id        uuid NOT NULL REFERENCES users,
    name            text NOT NULL,              -- unique among its owner's
    epoch           bigint NOT NULL DEFAULT 1,  -- grows with every restore from a backup
    head_seq        bigint NOT NULL DEFAULT 0,  -- the journal's last entry
    head_chain      bytea NOT NULL CHECK (octet_length(head_chain) = 32),
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner_id, name)
);

CREATE TABLE workspace_members (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    user_id         uuid NOT NULL REFERENCES users,
    role            text NOT NULL CHECK (role IN ('viewer', 'editor', 'owner')),
    PRIMARY KEY (workspace_id, user_id)
);
CREATE INDEX workspace_members_user ON workspace_members (user_id);

-- The tree by identity: a directory of a million files is renamed by one row. Tombstones stay as rows.
-- The root has no row; its id is all zeros.
CREATE TABLE nodes (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    node_id         uuid NOT NULL,              -- UUIDv7, made by the agent
    parent_id       uuid NOT NULL,
    name            text NOT NULL COLLATE "C",  -- exact
    kind            text NOT NULL CHECK (kind IN ('file', 'directory', 'symlink', 'mount')),
    version         bigint NOT NULL,            -- sequence of the commit that last changed it, its deletion included
    deleted         boolean NOT NULL DEFAULT false,
    mode            integer NOT NULL DEFAULT 0, -- permission bits
    mtime_ns        bigint NOT NULL DEFAULT 0,
    size_bytes      bigint NOT NULL DEFAULT 0,  -- files
    content_version bigint,                     -- files: whose row of `versions` holds the content
    target          text,                       -- symlinks
    mounted_workspace_id uuid REFERENCES workspaces,        -- mounts
    xattrs          bytea,                      -- files and directories: extended attributes, encoded; NULL: none
    made_at         timestamptz NOT NULL DEFAULT now(),     -- '-infinity': before anybody wrote it down
    PRIMARY KEY (workspace_id, node_id),
    -- A tripwire, not the check: `decide` says name_taken before this can fire.
    CONSTRAINT nodes_live_name EXCLUDE (workspace_id WITH =, parent_id WITH =, name WITH =)
        WHERE (NOT deleted) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX nodes_parent ON nodes (workspace_id, parent_id, name);
CREATE INDEX nodes_living ON nodes (workspace_id, made_at) WHERE NOT deleted;    -- counted by the guard, as far as it takes
-- Twenty children a directory, said once for all: what ANALYZE finds while a database is young (one directory holds
-- all) makes plans that read a whole workspace for each directory below a deleted one.
ALTER TABLE nodes ALTER COLUMN parent_id SET (n_distinct = -0.05);

-- Immutable: what a file held from a version on. History.
CREATE TABLE versions (
    workspace_id    uuid NOT NULL,
    node_id         uuid NOT NULL,
    version         bigint NOT NULL,            -- the commit's sequence
    manifest        bytea NOT NULL,             -- an encoded FullContent
    digest          bytea NOT NULL,             -- manifest_digest
    size_bytes      bigint NOT NULL,
    mtime_ns        bigint NOT NULL,
    mode            integer NOT NULL,
    user_id         uuid NOT NULL,              -- who
    device_id       uuid NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, node_id, version)
);

-- The truth: gap-free, append-only.
CREATE TABLE journal (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    seq             bigint NOT NULL,
    chain           bytea NOT NULL,             -- over all entries up to this one
    entry           bytea NOT NULL,             -- an encoded JournalEntry
    PRIMARY KEY (workspace_id, seq)
);

-- The last request of each device incarnation in each workspace, and its outcome, refusals included. Kept for good.
CREATE TABLE requests (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    device_id       uuid NOT NULL,
    incarnation     uuid NOT NULL,
    number          bigint NOT NULL,
    seq             bigint,                     -- of its journal entry, when it was accepted
    refusal         bytea,                      -- an encoded CommitRefused, when it was not
    answered_by     text NOT NULL,              -- which worker
    answered_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, device_id, incarnation),
    CHECK ((seq IS NULL) <> (refusal IS NULL))
);

-- Commit bodies too large for a message, until their request came (or a day has passed).
CREATE TABLE staged_bodies (
    device_id       uuid NOT NULL REFERENCES devices,
    hash            bytea NOT NULL,
    body            bytea NOT NULL,             -- an encoded CommitRequest
    staged_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, hash)
);

-- Where a pack's object lies. Pack ids are never used again.
CREATE TABLE packs (
    pack_id     uuid PRIMARY KEY,
    size_bytes  bigint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Chunks are stored once, whoever sent them.
CREATE TABLE chunks (
    hash            bytea PRIMARY KEY CHECK (octet_length(hash) = 32),     -- SHA-256 of the raw bytes
    pack_id         uuid NOT NULL REFERENCES packs,
    pack_offset     bigint NOT NULL,
    stored_bytes    integer NOT NULL,
    raw_bytes       integer NOT NULL,
    codec           smallint NOT NULL           -- 0 raw, 1 zstd
);

-- Which workspace may use which chunk.
CREATE TABLE workspace_chunks (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    hash            bytea NOT NULL,
    PRIMARY KEY (workspace_id, hash)
);

-- Proof that a user uploaded a chunk's bytes: lets that user's commits use it until the lease ends.
-- A query for it, by a user who has a proof, renews the lease.
CREATE TABLE chunk_proofs (
    user_id     uuid NOT NULL REFERENCES users,
    hash        bytea NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, hash)
);
CREATE INDEX chunk_proofs_expiry ON chunk_proofs (expires_at);

-- Which old nodes each device has deleted, or given other content, lately: what the guard measures. Old means made
-- before the guard's window began. Swept after a day.
CREATE TABLE touches (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    device_id       uuid NOT NULL REFERENCES devices,
    node_id         uuid NOT NULL,
    touched_at      timestamptz NOT NULL DEFAULT now(),     -- the last time
    PRIMARY KEY (workspace_id, device_id, node_id)
);
CREATE INDEX touches_time ON touches (workspace_id, device_id, touched_at);

-- The commit of a device that would have deleted or rewritten an unusual share: no entry of the journal, and nothing
-- else of that device is taken in that workspace, until a person has decided and the device has done as they said.
CREATE TABLE holds (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    device_id       uuid NOT NULL REFERENCES devices,
    hold_id         uuid NOT NULL UNIQUE,       -- another one whenever the device asks for something else
    verdict         text NOT NULL CHECK (verdict IN ('held', 'accepted', 'undone')),
    digest          bytea NOT NULL,             -- of the request, whatever its number and cursor: asked again, or changed?
    request         bytea NOT NULL,             -- an encoded CommitRequest
    deleted         bigint NOT NULL,            -- nodes that it would delete
    rewritten       bigint NOT NULL,            -- files and links that it would give other content
    to_follow       bigint NOT NULL,            -- how many more its author says are to come
    recent          bigint NOT NULL,            -- how many the device has touched before, within the window
    deleted_paths   text[] NOT NULL,            -- some of them, the topmost
    rewritten_paths text[] NOT NULL,            -- some of them
    held_at         timestamptz NOT NULL,
    allowed         bigint NOT NULL DEFAULT 0,  -- accepted: how many nodes the device may still touch uncounted
    expires_at      timestamptz,                -- accepted: until when
    PRIMARY KEY (workspace_id, device_id),
    CHECK ((verdict = 'accepted') = (expires_at IS NOT NULL))
);

-- The chunks that a held commit names: its author may use them, and nothing collects them, while it is held.
CREATE TABLE hold_chunks (
    workspace_id    uuid NOT NULL,
    device_id       uuid NOT NULL,
    hash            bytea NOT NULL,
    PRIMARY KEY (workspace_id, device_id, hash),
    FOREIGN KEY (workspace_id, device_id) REFERENCES holds ON DELETE CASCADE
);
CREATE INDEX hold_chunks_hash ON hold_chunks (hash);
