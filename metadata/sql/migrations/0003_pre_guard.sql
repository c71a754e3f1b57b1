-- The guard against mass changes: when a node was made, what each device has deleted and rewritten lately, and the
-- commits that are held. Nodes that stand already are old: they count from the first hour on.
ALTER TABLE nodes ADD COLUMN made_at timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE nodes ALTER COLUMN made_at SET DEFAULT now();
CREATE INDEX nodes_living ON nodes (workspace_id, made_at) WHERE NOT deleted;

CREATE TABLE touches (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    device_id       uuid NOT NULL REFERENCES devices,
    node_id         uuid NOT NULL,
    touched_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, device_id, node_id)
);
CREATE INDEX touches_time ON touches (workspace_id, device_id, touched_at);

CREATE TABLE holds (
    workspace_id    uuid NOT NULL REFERENCES workspaces,
    device_id       uuid NOT NULL REFERENCES devices,
    hold_id         uuid NOT NULL UNIQUE,
    verdict         text NOT NULL CHECK (verdict IN ('held', 'accepted', 'undone')),
    digest          bytea NOT NULL,
    request         bytea NOT NULL,
    deleted         bigint NOT NULL,
    rewritten       bigint NOT NULL,
    to_follow       bigint NOT NULL,
    recent          bigint NOT NULL,
    deleted_paths   text[] NOT NULL,
    rewritten_paths text[] NOT NULL,
    held_at         timestamptz NOT NULL,
    allowed         bigint NOT NULL DEFAULT 0,
    expires_at      timestamptz,
    PRIMARY KEY (workspace_id, device_id),
    CHECK ((verdict = 'accepted') = (expires_at IS NOT NULL))
);

CREATE TABLE hold_chunks (
    workspace_id    uuid NOT NULL,
    device_id       uuid NOT NULL,
    hash            bytea NOT NULL,
    PRIMARY KEY (workspace_id, device_id, hash),
    FOREIGN KEY (workspace_id, device_id) REFERENCES holds ON DELETE CASCADE
);
CREATE INDEX hold_chunks_hash ON hold_chunks (hash);
