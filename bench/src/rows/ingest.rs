//! A layer's tar into a store.

use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use kiln_images::ImageStore;
use kiln_metadata::SqliteStore;

use crate::program::{ms, succeed};
use crate::record::Recorder;
use crate::rig::Rig;
use crate::turns::{Contestant, Cost, take};

/// Kiln: read, hash, store, index, row, all durable; the store's own code in this process, since the API
/// has no upload. `tar -x` and podman do not wait for the disk.
pub(super) fn ingest(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let base = rig.base()?;
    let size = fs::metadata(base)?.len();
    let kilobytes = f64::from(u32::try_from(size / 1000)?);
    let rate = |ms: f64| kilobytes / ms;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let store = rig.path("ingest");
    let unpacked = rig.path("unpacked");
    let podman = rig.podman()?;
    let contestants = vec![
        Contestant::new("kiln, durable", Cost::High, || {
            fs::create_dir_all(&store)?;
            let time = runtime.block_on(async {
                let metadata = Arc::new(SqliteStore::open(store.join("kiln.sqlite")).await?);
                let images = ImageStore::open(&store, metadata.clone())?;
                let start = Instant::now();
                let layer = images.import_layer(Box::new(File::open(base)?), None, &[]).await?;
                let time = ms(start.elapsed());
                ensure!(layer.size == size, "{} bytes of {size} were stored", layer.size);
                metadata.close().await;
                Ok(time)
            })?;
            fs::remove_dir_all(&store)?;
            Ok(rate(time))
        }),
        Contestant::new("tar -x", Cost::Extreme, || {
            fs::create_dir_all(&unpacked)?;
            let mut tar = Command::new("tar");
            let time = succeed(tar.arg("-xf").arg(base).arg("-C").arg(&unpacked))?.time;
            fs::remove_dir_all(&unpacked)?;
            Ok(rate(ms(time)))
        }),
        Contestant::new("podman import", Cost::Extreme, || {
            let base = base.display().to_string();
            let done = podman.run(&["podman", "import", "--quiet", &base, "bench-imported"])?;
            podman.run(&["podman", "rmi", "bench-imported"])?;
            Ok(rate(ms(done.time)))
        }),
    ];
    take(recorder, "ingest", contestants)
}
