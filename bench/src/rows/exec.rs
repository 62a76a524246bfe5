//! Running a command in a sandbox that runs.

use std::time::Instant;

use anyhow::Result;

use super::drivers::{Driver, drivers};
use crate::peers::Network;
use crate::program::{ms, succeed};
use crate::record::Recorder;
use crate::rig::{BASE, Rig};
use crate::turns::{Contestant, Cost, take};

/// One request to Kiln; three to podman's service.
pub(super) fn api(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let (kiln, podman) = (rig.kiln()?, rig.podman()?);
    let sandbox = kiln.create(BASE)?;
    let container = podman.create("localhost/base", Network::None)?;
    anyhow::ensure!(
        kiln.exec(&sandbox, &["echo", "fired"])? == "fired\n",
        "kiln's exec lost output"
    );
    let output = podman.exec(&container, &["echo", "fired"])?;
    anyhow::ensure!(output == "fired\n", "podman's exec lost output: {output:?}");
    let mut contestants = vec![
        Contestant::new("kiln", Cost::Low, || {
            let start = Instant::now();
            kiln.exec(&sandbox, &["true"])?;
            Ok(ms(start.elapsed()))
        }),
        Contestant::new("podman service", Cost::High, || {
            let start = Instant::now();
            podman.exec(&container, &["true"])?;
            Ok(ms(start.elapsed()))
        }),
    ];
    let mut others = Vec::new();
    for Driver { name, title, cost } in drivers(recorder, kiln, "exec-api")? {
        let sandbox = kiln.create_by(BASE, name)?;
        others.push(sandbox.clone());
        // An exec takes less than a start.
        let cost = if cost == Cost::High { Cost::Middle } else { Cost::Low };
        contestants.push(Contestant::new(title, cost, move || {
            let start = Instant::now();
            kiln.exec(&sandbox, &["true"])?;
            Ok(ms(start.elapsed()))
        }));
    }
    take(recorder, "exec-api", contestants)?;
    others.iter().try_for_each(|sandbox| kiln.remove(sandbox))?;
    podman.remove(&container)?;
    kiln.remove(&sandbox)
}

/// One command.
pub(super) fn cli(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let (kiln, podman, bundle) = (rig.kiln()?, rig.podman()?, rig.bundle()?);
    let sandbox = kiln.create(BASE)?;
    let container = podman.create("localhost/base", Network::None)?;
    let mut contestants = vec![
        Contestant::new("kiln exec", Cost::Low, || {
            Ok(ms(succeed(&mut kiln.cli(&["exec", &sandbox, "--", "true"]))?.time))
        }),
        Contestant::new("podman exec", Cost::High, || {
            Ok(ms(podman.run(&["podman", "exec", &container, "true"])?.time))
        }),
    ];
    let mut started = Vec::new();
    for (runtime, cost) in rig.runtimes(recorder, "exec-cli")? {
        let (id, _) = runtime.start(bundle)?;
        started.push((runtime, id.clone()));
        let name = format!("{} exec", runtime.title);
        contestants.push(Contestant::new(name, cost, move || Ok(ms(runtime.exec(&id)?))));
    }
    take(recorder, "exec-cli", contestants)?;
    started.iter().try_for_each(|(runtime, id)| runtime.remove(id))?;
    podman.remove(&container)?;
    kiln.remove(&sandbox)
}
