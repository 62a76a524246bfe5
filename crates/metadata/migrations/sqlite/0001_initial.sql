-- Digests are `sha256:<hex>` text, ids and names text. Times are RFC 3339 in UTC with nine
-- fractional digits, so that their order as text is their order in time. Nested values are JSON.
-- `seq` numbers rows in the order in which they came; replacing a row keeps its number.

CREATE TABLE layers (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id       TEXT    NOT NULL UNIQUE,
    size          INTEGER NOT NULL,
    needs_parents INTEGER NOT NULL
) STRICT;

-- A fact about bytes: it holds whether or not the layer is here.
CREATE TABLE blob_diff_ids (
    compressed TEXT NOT NULL PRIMARY KEY,
    diff_id    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
    seq                INTEGER PRIMARY KEY AUTOINCREMENT,
    digest             TEXT    NOT NULL UNIQUE,
    manifest_size      INTEGER NOT NULL,
    config_digest      TEXT    NOT NULL,
    config_size        INTEGER NOT NULL,
    definition_key     TEXT,
    default_vcpu       INTEGER,
    default_memory_mib INTEGER,
    created_at         TEXT    NOT NULL
) STRICT;
CREATE INDEX images_by_definition ON images (definition_key, created_at)
    WHERE definition_key IS NOT NULL;

-- An image may have one layer several times.
CREATE TABLE image_layers (
    image    TEXT    NOT NULL REFERENCES images (digest) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer    TEXT    NOT NULL REFERENCES layers (diff_id),
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (layer);

CREATE TABLE image_names (
    name  TEXT NOT NULL PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (digest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX image_names_by_image ON image_names (image);

CREATE TABLE base_pins (
    base        TEXT NOT NULL PRIMARY KEY,
    image       TEXT NOT NULL REFERENCES images (digest) ON DELETE CASCADE,
    source      TEXT NOT NULL,
    resolved_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX base_pins_by_image ON base_pins (image);

CREATE TABLE steps (
    key   TEXT NOT NULL PRIMARY KEY,
    layer TEXT REFERENCES layers (diff_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX steps_by_layer ON steps (layer) WHERE layer IS NOT NULL;

-- A build outlives the image that it made.
CREATE TABLE builds (
    id             TEXT    NOT NULL PRIMARY KEY,
    status         TEXT    NOT NULL,
    name           TEXT,
    definition     TEXT    NOT NULL,
    definition_key TEXT,
    image          TEXT,
    steps_cached   INTEGER NOT NULL,
    failure        TEXT,
    created_at     TEXT    NOT NULL,
    finished_at    TEXT
) STRICT;
CREATE INDEX builds_running ON builds (id) WHERE status = 'running';

CREATE TABLE sandboxes (
    id           TEXT NOT NULL PRIMARY KEY,
    name         TEXT UNIQUE,
    status       TEXT NOT NULL,
    image        TEXT NOT NULL,
    image_digest TEXT NOT NULL REFERENCES images (digest),
    env          TEXT NOT NULL,
    limits       TEXT NOT NULL,
    address      TEXT,
    reason       TEXT,
    created_at   TEXT NOT NULL
) STRICT;
CREATE INDEX sandboxes_by_image ON sandboxes (image_digest);

-- A row is a slot that is taken: reserved while `sandbox` is null, else that sandbox's.
CREATE TABLE slots (
    slot    INTEGER PRIMARY KEY,
    sandbox TEXT UNIQUE REFERENCES sandboxes (id) ON DELETE CASCADE
) STRICT;

-- `image_name` is the name in its full form, with the tag.
CREATE TABLE snapshots (
    id              TEXT    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    image_name      TEXT    NOT NULL UNIQUE,
    status          TEXT    NOT NULL,
    image           TEXT    NOT NULL REFERENCES images (digest),
    sandbox         TEXT    NOT NULL,
    layer_size      INTEGER NOT NULL,
    skipped_sockets INTEGER NOT NULL,
    created_at      TEXT    NOT NULL
) STRICT;
CREATE INDEX snapshots_by_image ON snapshots (image);

CREATE TABLE api_keys (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    secret_hash TEXT NOT NULL,
    label       TEXT NOT NULL,
    created_at  TEXT NOT NULL
) STRICT;
