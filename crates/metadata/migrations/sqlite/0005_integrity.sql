-- What is needed to find damage, to undo it, and to know what is not needed any more.

-- Where an image, and where a layer, was pulled from: a reference with the digest of a manifest.
CREATE TABLE image_sources (
    image     TEXT NOT NULL PRIMARY KEY REFERENCES images (digest) ON DELETE CASCADE,
    reference TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE layer_sources (
    layer     TEXT NOT NULL PRIMARY KEY REFERENCES layers (diff_id) ON DELETE CASCADE,
    reference TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Bases that were pulled before this was written down. Whatever comes from there is held against its
-- digest, so that a wrong guess does no harm.
INSERT INTO image_sources (image, reference)
    SELECT image, MIN(substr(base, 11) || '@' || image) FROM base_pins
    WHERE base LIKE 'reference:%' AND instr(base, '@') = 0 GROUP BY image;
INSERT INTO layer_sources (layer, reference)
    SELECT layer, MIN(reference) FROM image_sources JOIN image_layers USING (image) GROUP BY layer;

-- When a result or a pin was last of use, to about an hour. It is not known of old ones.
ALTER TABLE steps ADD COLUMN used_at TEXT;
ALTER TABLE base_pins ADD COLUMN used_at TEXT;
UPDATE steps SET used_at = strftime('%Y-%m-%dT%H:%M:%f000000Z', 'now');
UPDATE base_pins SET used_at = strftime('%Y-%m-%dT%H:%M:%f000000Z', 'now');

-- SQLite has no checksums of its own. `sum` is SHA-256 over the row `key` of the table `tbl`, written
-- in the transaction that writes the row.
CREATE TABLE row_sums (
    tbl TEXT NOT NULL,
    key TEXT NOT NULL,
    sum BLOB NOT NULL,
    PRIMARY KEY (tbl, key)
) STRICT, WITHOUT ROWID;
