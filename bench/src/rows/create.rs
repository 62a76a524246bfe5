//! Making a sandbox and getting its first answer.

use std::time::Instant;

use anyhow::Result;

use super::drivers::{Driver, drivers};
use crate::peers::Network;
use crate::program::{ms, succeed};
use crate::record::Recorder;
use crate::rig::{BASE, Rig};
use crate::turns::{Contestant, Cost, take};

/// Two requests over a connection that is kept alive: create, exec. podman's service needs five: create,
/// start, make an exec, start it, ask how it ended.
pub(super) fn api(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let mut contestants = Vec::new();
    for (name, kiln) in rig.flavours()? {
        contestants.push(Contestant::new(name, Cost::Low, move || {
            let start = Instant::now();
            let sandbox = kiln.create(BASE)?;
            kiln.exec(&sandbox, &["true"])?;
            let time = start.elapsed();
            kiln.remove(&sandbox)?;
            Ok(ms(time))
        }));
    }
    let podman = rig.podman()?;
    for network in [Network::Bridge, Network::None] {
        let name = format!("podman service, {}", network.title());
        contestants.push(Contestant::new(name, Cost::High, move || {
            let start = Instant::now();
            let container = podman.create("localhost/base", network)?;
            podman.exec(&container, &["true"])?;
            let time = start.elapsed();
            podman.remove(&container)?;
            Ok(ms(time))
        }));
    }
    take(recorder, "create-api", contestants)
}

/// The same by Kiln's drivers. A row of their own: what a heavy one puts away after its turn would be
/// in the times of whoever is next.
pub(super) fn by_drivers(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let kiln = rig.kiln()?;
    let native = Driver { name: "native", title: "kiln", cost: Cost::Low };
    let mut contestants = Vec::new();
    for Driver { name, title, cost } in
        std::iter::once(native).chain(drivers(recorder, kiln, "create-drivers")?)
    {
        contestants.push(Contestant::new(title, cost, move || {
            let start = Instant::now();
            let sandbox = kiln.create_by(BASE, name)?;
            kiln.exec(&sandbox, &["true"])?;
            let time = start.elapsed();
            kiln.remove(&sandbox)?;
            Ok(ms(time))
        }));
    }
    take(recorder, "create-drivers", contestants)
}

/// One command that makes a sandbox, runs `true` in it and removes it.
pub(super) fn cli(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let mut contestants = Vec::new();
    let kiln = rig.kiln()?;
    contestants.push(Contestant::new("kiln run", Cost::Low, move || {
        Ok(ms(succeed(&mut kiln.cli(&["run", BASE, "--", "true"]))?.time))
    }));
    let podman = rig.podman()?;
    for network in [Network::Bridge, Network::None] {
        let name = format!("podman run, {}", network.title());
        contestants.push(Contestant::new(name, Cost::High, move || {
            let done = podman.run(&[
                "podman",
                "run",
                "--rm",
                "--network",
                network.name(),
                "base",
                "true",
            ])?;
            Ok(ms(done.time))
        }));
    }
    let bundle = rig.bundle()?;
    for (runtime, cost) in rig.runtimes(recorder, "create-cli")? {
        let name = format!("{} run, no network", runtime.title);
        contestants.push(Contestant::new(name, cost, move || Ok(ms(runtime.run(bundle)?))));
    }
    take(recorder, "create-cli", contestants)
}
