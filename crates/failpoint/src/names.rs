//! The names, in one place.

/// A fail point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The name: what it is about, and what has just happened or is about to.
    pub name: &'static str,
    /// What it belongs to.
    pub area: &'static str,
    /// Whether the operation can fail here; at all points the process can die.
    pub can_fail: bool,
    /// The state of things at this point.
    pub state: &'static str,
}

const fn point(
    name: &'static str,
    area: &'static str,
    can_fail: bool,
    state: &'static str,
) -> Point {
    Point { name, area, can_fail, state }
}

/// All fail points.
#[rustfmt::skip]
pub const POINTS: &[Point] = &[
    point("blob.created", "blobs", true, "a temporary file was made, nothing is in it"),
    point("blob.flush", "blobs", true, "what was gathered is about to be written"),
    point("blob.written", "blobs", true, "all is written, nothing is synced"),
    point("blob.synced", "blobs", true, "the bytes are durable, the name is not given"),
    point("blob.named", "blobs", true, "the name is given and may be lost"),
    point("blob.durable", "blobs", false, "the name is durable, nobody knows yet"),
    point("blob.remove", "blobs", true, "a blob is about to be removed"),
    point("index.created", "indexes", true, "a temporary file was made"),
    point("index.written", "indexes", true, "all is written, nothing is synced"),
    point("index.synced", "indexes", true, "the bytes are durable, the name is not given"),
    point("index.named", "indexes", true, "the name is given and may be lost"),
    point("index.remove", "indexes", true, "an index is about to be removed"),
    point("layer.stored", "layers", false, "the tar is a blob, there is no index"),
    point("layer.indexed", "layers", false, "blob and index are there, the row is not"),
    point("layer.recorded", "layers", false, "the row is there, nobody uses it"),
    point("layer.unrecorded", "layers", false, "the row is removed, the files are not"),
    point("layer.drafted", "directories", true, "a layer is laid out under a temporary name, not synced"),
    point("layer.laid-out", "directories", false, "a laid-out layer has its name"),
    point("layer.doomed", "directories", true, "a laid-out layer is set aside, its files are there"),
    point("image.stored", "images", false, "config and manifest are blobs, the row is not written"),
    point("image.recorded", "images", false, "the row is written, nobody knows yet"),
    point("image.remove", "images", false, "nothing is removed yet"),
    point("image.unrecorded", "images", false, "the row is removed, the files are not"),
    point("gc.image-unrecorded", "garbage", false, "the row of an image that nothing needs is removed"),
    point("gc.steps-unrecorded", "garbage", false, "the rows of steps are removed, their layers are there"),
    point("gc.layer-unrecorded", "garbage", false, "the row of a layer is removed, all files are there"),
    point("gc.index-removed", "garbage", false, "an index is gone, the blobs are there"),
    point("gc.build-unrecorded", "garbage", false, "the row of a build is removed, its log is there"),
    point("aside.remove", "garbage", true, "what was set aside as damaged is about to be removed"),
    point("db.created", "database", true, "the file was made, its name may be lost"),
    point("db.locked", "database", true, "the database is about to be opened"),
    point("db.migrated", "database", false, "the schema is current"),
    point("db.begun", "database", true, "a transaction has begun"),
    point("db.commit", "database", true, "a transaction is about to be committed"),
    point("db.committed", "database", false, "a transaction is durable, nobody knows yet"),
    point("upper.drafted", "disks", true, "the directories are made under a temporary name"),
    point("upper.created", "disks", false, "a sandbox's disk has its name"),
    point("upper.doomed", "disks", true, "a disk is set aside, its files are there"),
    point("slot.group-made", "slots", false, "there is an empty control group"),
    point("slot.parked", "slots", false, "a process waits, outside of its control group"),
    point("slot.connected", "slots", true, "the network is connected"),
    point("slot.group-removed", "slots", false, "the control group is gone, the network is not"),
    point("slot.disconnected", "slots", false, "the network is gone, the slot is reserved"),
    point("sandbox.directory-made", "sandboxes", true, "the state directory is there, the agent's socket is not"),
    point("sandbox.root-mounted", "sandboxes", true, "the root is mounted, no process is started"),
    point("sandbox.launched", "sandboxes", false, "the agent starts, nothing is written down"),
    point("sandbox.state-drafted", "sandboxes", true, "the process is written down under a temporary name"),
    point("sandbox.state-written", "sandboxes", false, "the process is written down"),
    point("sandbox.booted", "sandboxes", false, "the agent has answered, there is no row"),
    point("sandbox.recorded", "sandboxes", false, "the row is there, nobody knows yet"),
    point("sandbox.restarted", "sandboxes", false, "a stopped sandbox runs, its row says stopped"),
    point("sandbox.killed", "sandboxes", false, "the processes are killed, nothing is cleaned up"),
    point("sandbox.halted", "sandboxes", false, "it is stopped, its row says running"),
    point("sandbox.doomed", "sandboxes", false, "the row says removing, it runs"),
    point("sandbox.ended", "sandboxes", false, "it does not run, its disk is there"),
    point("sandbox.disk-removed", "sandboxes", false, "its disk is gone, its row is there"),
    point("sandbox.unrecorded", "sandboxes", false, "all is gone, nobody knows yet"),
    point("snapshot.frozen", "snapshots", false, "the sandbox stands still"),
    point("snapshot.thawed", "snapshots", false, "the layer is made, the sandbox runs on"),
    point("snapshot.sealed", "snapshots", false, "the layer is made, no image has it"),
    point("snapshot.image-made", "snapshots", false, "the image is made, it has no name"),
    point("snapshot.recorded", "snapshots", false, "the row is there, the name is not"),
    point("snapshot.unrecorded", "snapshots", false, "the row is removed, the image is not"),
    point("build.log-made", "builds", false, "there is a log and no row"),
    point("step.disk-made", "builds", false, "a step has a disk and no sandbox"),
    point("step.ran", "builds", false, "the step's sandbox has ended, its disk is there"),
    point("step.done", "builds", false, "the layer is made, the disk is there"),
    point("step.recorded", "builds", false, "the step is known"),
    point("build.ended", "builds", false, "the image is named, the build still runs by its row"),
    point("pull.fetched", "pulls", false, "all layers came, none is visible"),
    point("pull.layer-made", "pulls", false, "a layer is visible, no image has it"),
    point("start.adopted", "start", false, "running sandboxes are found again, leftovers are there"),
    point("start.reconciled", "start", false, "sandboxes are in order, builds are not"),
    point("start.builds-ended", "start", false, "builds are in order, unused files are there"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Collects the points of a source tree: name and whether it can fail, and how often it stands there.
    fn collect(directory: &Path, found: &mut BTreeMap<(String, bool), u32>) {
        for entry in fs::read_dir(directory).expect("the sources can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                for (call, can_fail) in [("reach", true), ("pass", false)] {
                    let call = format!("kiln_failpoint::{call}(\"");
                    for rest in text.split(&call).skip(1) {
                        let name = rest.split('"').next().expect("a name").to_owned();
                        *found.entry((name, can_fail)).or_default() += 1;
                    }
                }
            }
        }
    }

    #[test]
    fn the_table_is_what_the_sources_have() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates");
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(crates).expect("the crates") {
            let source = entry.expect("an entry").path().join("src");
            if source.is_dir() && !source.starts_with(env!("CARGO_MANIFEST_DIR")) {
                collect(&source, &mut found);
            }
        }
        let table: BTreeMap<(String, bool), u32> =
            POINTS.iter().map(|point| ((point.name.to_owned(), point.can_fail), 1)).collect();
        assert_eq!(table.len(), POINTS.len(), "a name stands twice in the table");
        // Two implementations of the same operation share a name.
        let found: Vec<_> = found.into_keys().collect();
        assert_eq!(found, table.into_keys().collect::<Vec<_>>());
    }
}
