-- The driver that runs a sandbox. Those from before there was a choice run on the native one.

ALTER TABLE sandboxes ADD COLUMN driver TEXT NOT NULL DEFAULT 'native';
