//! Saving what a sandbox changed.

use std::cell::Cell;
use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::kiln::Kiln;
use crate::peers::Network;
use crate::program::{ms, succeed};
use crate::record::Recorder;
use crate::rig::{BASE, Rig};
use crate::turns::{Contestant, Cost, take};

const FILES: u32 = 128;
const FILE_BYTES: u32 = 1 << 20;
const BYTES: f64 = (FILES * FILE_BYTES) as f64;

/// 128 files of 1 MiB that do not compress. Before each turn one byte changes and all is written back.
pub(super) fn snapshot(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let tree = rig.path("tree");
    fs::create_dir_all(&tree)?;
    let mut content = vec![0; FILE_BYTES as usize];
    for number in 0..FILES {
        recorder.random().fill(&mut content);
        fs::write(tree.join(format!("file{number}")), &content)?;
    }
    let podman = rig.podman()?;
    let container = podman.create("localhost/base", Network::None)?;
    let mut contestants = Vec::new();
    let mut sandboxes: Vec<(&Kiln, String)> = Vec::new();
    for (name, kiln) in rig.flavours()? {
        let sandbox = kiln.create(BASE)?;
        let script = format!(
            "mkdir /data; cd /data; i=0; while [ $i -lt {FILES} ]; do \
             head -c {FILE_BYTES} /dev/urandom > file$i; i=$((i+1)); done; sync"
        );
        kiln.exec(&sandbox, &["sh", "-c", &script])?;
        sandboxes.push((kiln, sandbox.clone()));
        contestants.push(Contestant::new(format!("{name}, durable"), Cost::High, move || {
            kiln.exec(&sandbox, &["sh", "-c", "date +%N > /data/mark; sync"])?;
            let start = Instant::now();
            let size = kiln.snapshot(&sandbox, "bench-snapshot")?;
            let time = ms(start.elapsed());
            ensure!(size >= u64::from(FILES * FILE_BYTES), "the layer has only {size} bytes");
            kiln.remove_snapshot("bench-snapshot")?;
            Ok(BYTES / 1000.0 / time)
        }));
    }
    let archive = rig.path("tree.tar");
    for (name, script) in
        [("tar -c", "tar -cf $1 -C $0 ."), ("tar -c, durable", "tar -cf $1 -C $0 . && sync $1")]
    {
        let (tree, archive) = (tree.clone(), archive.clone());
        contestants.push(Contestant::new(name, Cost::High, move || {
            let mut tar = Command::new("sh");
            let time = succeed(tar.args(["-c", script]).arg(&tree).arg(&archive))?.time;
            fs::remove_file(&archive)?;
            Ok(BYTES / 1000.0 / ms(time))
        }));
    }
    let target = format!("{container}:/data");
    podman.run(&["podman", "cp", &tree.display().to_string(), &target])?;
    contestants.push(Contestant::new("podman commit", Cost::Extreme, || {
        podman.exec(&container, &["sh", "-c", "date +%N > /data/mark; sync"])?;
        let done = podman.run(&["podman", "commit", "--quiet", &container, "bench-commit"])?;
        podman.run(&["podman", "rmi", "bench-commit"])?;
        Ok(BYTES / 1000.0 / ms(done.time))
    }));
    contestants.push(repack(rig)?);
    take(recorder, "snapshot", contestants)?;
    podman.remove(&container)?;
    sandboxes.iter().try_for_each(|(kiln, sandbox)| kiln.remove(sandbox))
}

/// umoci compares the whole tree with what it unpacked, and compresses the layer.
fn repack(rig: &Rig) -> Result<Contestant<'_>> {
    let layout = rig.path("repack-layout");
    succeed(Command::new("cp").arg("-a").arg(rig.layout()?).arg(&layout))?;
    let bundle = rig.path("repack-bundle");
    let image = |tag: &str| format!("{}:{tag}", layout.display());
    succeed(Command::new("umoci").args(["unpack", "--image", &image("base")]).arg(&bundle))?;
    let data = bundle.join("rootfs/data");
    succeed(Command::new("cp").arg("-a").arg(rig.path("tree")).arg(&data))?;
    let turn = Cell::new(0);
    let prefix = image("");
    Ok(Contestant::new("umoci repack, gzip", Cost::Extreme, move || {
        turn.set(turn.get() + 1);
        fs::write(data.join("mark"), turn.get().to_string())?;
        succeed(Command::new("sync").arg("-f").arg(&data))?;
        let image = format!("{prefix}turn{}", turn.get());
        let mut repack = Command::new("umoci");
        let time = succeed(repack.args(["repack", "--image", &image]).arg(&bundle))?.time;
        Ok(BYTES / 1000.0 / ms(time))
    }))
}
