//! The start of a daemon that has much to remember.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use kiln_images::{ImageStore, NewImage};
use kiln_metadata::{SqliteStore, TemplateDefaults};
use kiln_types::ImageConfig;
use serde_json::json;

use crate::interrupt;
use crate::kiln::{Kiln, create, exec};
use crate::program::{ms, succeed};
use crate::record::Recorder;
use crate::rig::{BASE, Rig};
use crate::turns::Cost;

/// Each image has a layer of its own upon one that all share; the sandboxes ran once and were stopped. The
/// store was just in use: nothing has to come from the disk.
pub(super) fn start(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let quick = recorder.runs() < 40;
    let (images, sandboxes) = if quick { (100, 10) } else { (10_000, 1000) };
    if quick {
        recorder.note("start", &format!("with {images} images and {sandboxes} sandboxes only"))?;
    }
    let data = rig.path("many");
    fill(rig, &data, images)?;
    let registry = rig.registry()?;
    let restart = || Kiln::start(rig.program(), &data, &[], &registry.host());
    let (mut kiln, _) = restart()?;
    kiln.pull(&registry.reference(), BASE)?;
    populate(&kiln, sandboxes)?;
    for turn in 0..=Cost::High.turns(recorder.runs()) {
        interrupt::check()?;
        kiln.end()?;
        let (started, time) = restart()?;
        kiln = started;
        let known = kiln.sandboxes()?.len();
        ensure!(known == sandboxes, "{known} of {sandboxes} sandboxes are known");
        let found = kiln.image_layers("many-7")?;
        ensure!(found == 2, "an image has {found} layers");
        if turn > 0 {
            recorder.sample("start", "kiln", ms(time))?;
        }
    }
    Ok(())
}

/// Makes the images in memory, where nothing waits for the disk, and copies the store.
fn fill(rig: &Rig, data: &Path, count: u32) -> Result<()> {
    let scratch = rig.memory();
    let made = scratch.join("data");
    let (kiln, _) = Kiln::start(rig.program(), &made, &[], &rig.registry()?.host())?;
    // A daemon's own start makes all that belongs into a data directory.
    drop(kiln);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(images(&made, count))?;
    succeed(Command::new("cp").arg("-a").arg(&made).arg(data))?;
    succeed(Command::new("sync").arg("-f").arg(data))?;
    fs::remove_dir_all(&scratch).context("could not remove what was copied")
}

async fn images(data: &Path, count: u32) -> Result<()> {
    let metadata = Arc::new(SqliteStore::open(data.join("kiln.sqlite")).await?);
    let store = ImageStore::open(data, metadata.clone())?;
    let shared = archive(u32::MAX);
    let shared = store.import_layer(Box::new(shared), None, &[]).await?.diff_id;
    for number in 0..count {
        interrupt::check()?;
        let own = archive(number);
        let own = store.import_layer(Box::new(own), None, &[shared]).await?.diff_id;
        let image = NewImage {
            config: ImageConfig::default(),
            layers: vec![shared, own],
            name: Some(format!("many-{number}").parse()?),
            definition_key: None,
            defaults: TemplateDefaults::default(),
            created_by: vec!["bench".to_owned(); 2],
        };
        store.commit_image(image).await?;
    }
    metadata.close().await;
    Ok(())
}

/// A tar with one small file, made by hand: to start a program for each would take longer than the rest.
fn archive(number: u32) -> std::io::Cursor<Vec<u8>> {
    let content = number.to_string();
    let mut header = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &format!("file-{number}"));
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(content.as_bytes());
    tar.resize(2048, 0);
    std::io::Cursor::new(tar)
}

/// Makes sandboxes, writes a file in each, and stops them.
fn populate(kiln: &Kiln, count: usize) -> Result<()> {
    const CLIENTS: usize = 4;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(kiln.connect()?);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(index, mut connection)| {
                scope.spawn(move || -> Result<()> {
                    for _ in (index..count).step_by(CLIENTS) {
                        let sandbox = create(&mut connection, &json!({"image": BASE}))?;
                        exec(&mut connection, &sandbox, &["sh", "-c", "echo x > /root/x"])?;
                        let path = format!("/v1/sandboxes/{sandbox}/stop");
                        connection.request("POST", &path, None)?.success()?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().ok().context("a client panicked")?)
    })
}
