//! From a registry to the first exec.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::kiln::{FLAVOURS, Kiln};
use crate::peers::{Podman, configure, largest_blob};
use crate::program::{ms, succeed};
use crate::record::Recorder;
use crate::rig::Rig;
use crate::turns::{Contestant, Cost, Measured, take};

/// Every turn begins without the image. The floors only inflate the layer, and throw it away.
pub(super) fn pull(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let registry = rig.registry()?;
    let reference = registry.reference();
    let mut contestants = Vec::new();
    for flavour in FLAVOURS {
        // Only those that there are; this store is another one, that has no image.
        if rig.flavour(&flavour)?.is_none() {
            continue;
        }
        let data = rig.path(&format!("pull-{}", flavour.directory));
        let (kiln, _) = Kiln::start(rig.program(), &data, flavour.env, &registry.host())?;
        let reference = reference.clone();
        contestants.push(Contestant::new(flavour.name, Cost::High, move || {
            let start = Instant::now();
            kiln.pull(&reference, "pulled")?;
            let pulled = ms(start.elapsed());
            let sandbox = kiln.create("pulled")?;
            kiln.exec(&sandbox, &["true"])?;
            let answered = ms(start.elapsed());
            kiln.remove(&sandbox)?;
            let freed = kiln.remove_image("pulled")?;
            ensure!(freed > 100_000_000, "only {freed} bytes were freed: the next pull is none");
            Ok(Measured { value: pulled, also: vec![("pull-exec", answered)] })
        }));
    }
    let podman = Podman::start(&rig.path("podman-pull"), &reference)?;
    contestants.push(Contestant::new("podman pull, run, no network", Cost::Extreme, {
        let reference = reference.clone();
        move || {
            podman.run(&["podman", "rmi", "--all", "--force"])?;
            let start = Instant::now();
            let words = ["podman", "pull", "--quiet", "--tls-verify=false", &reference];
            podman.run(&words)?;
            let pulled = ms(start.elapsed());
            podman.run(&["podman", "run", "--rm", "--network=none", &reference, "true"])?;
            Ok(Measured { value: pulled, also: vec![("pull-exec", ms(start.elapsed()))] })
        }
    }));
    let directory = rig.path("by-hand");
    contestants.push(Contestant::new("skopeo, umoci unpack, runc", Cost::Extreme, move || {
        by_hand(rig, &reference, &directory)
    }));
    let blob = largest_blob(rig.layout()?)?;
    let inflated = blob.clone();
    contestants.push(Contestant::new("floor: gzip -dc", Cost::Extreme, move || {
        let mut gzip = Command::new("sh");
        Ok(ms(succeed(gzip.args(["-c", "gzip -dc < $0 > /dev/null"]).arg(&blob))?.time))
    }));
    contestants.push(Contestant::new("floor: zlib-rs", Cost::High, move || {
        let start = Instant::now();
        let file = io::BufReader::with_capacity(1 << 17, File::open(&inflated)?);
        let mut inflate = flate2::bufread::GzDecoder::new(file);
        ensure!(io::copy(&mut inflate, &mut io::sink())? > 100_000_000, "the layer is too small");
        Ok(ms(start.elapsed()))
    }));
    take(recorder, "pull", contestants)
}

fn by_hand(rig: &Rig, reference: &str, directory: &Path) -> Result<Measured> {
    fs::create_dir_all(directory)?;
    let layout = directory.join("layout").display().to_string();
    let image = format!("{layout}:base");
    let unpacked = directory.join("unpacked");
    let start = Instant::now();
    succeed(Command::new("skopeo").args([
        "copy",
        "--insecure-policy",
        "--src-tls-verify=false",
        &format!("docker://{reference}"),
        &format!("oci:{image}"),
    ]))?;
    succeed(Command::new("umoci").args(["unpack", "--image", &image]).arg(&unpacked))?;
    let pulled = ms(start.elapsed());
    // To write the configuration is no part of it.
    let bundle = directory.join("bundle");
    configure(&bundle, &unpacked.join("rootfs"), &["true"])?;
    let answered = pulled + ms(rig.runc().run_at(&bundle)?);
    fs::remove_dir_all(directory).context("could not remove what was unpacked")?;
    Ok(Measured { value: pulled, also: vec![("pull-exec", answered)] })
}
