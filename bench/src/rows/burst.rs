//! Many at once.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::kiln::{Kiln, create, exec};
use crate::peers::{Bundle, Network, OciRuntime, Podman};
use crate::program::{self, ms};
use crate::record::Recorder;
use crate::rig::{BASE, Rig};

/// The same number of clients starts at the same moment; each makes one and runs `true` in it.
pub(super) fn burst(recorder: &mut Recorder, rig: &Rig) -> Result<()> {
    let (kiln, podman, bundle) = (rig.kiln()?, rig.podman()?, rig.bundle()?);
    let rounds = recorder.runs().div_ceil(40);
    for round in 0..=rounds {
        let small = [("kiln", of_kiln(kiln, 20)?), ("podman service, NAT", of_podman(podman, 20)?)];
        let large = [
            ("kiln", of_kiln(kiln, 100)?),
            ("runc run and exec, no network", of_runc(rig.runc(), bundle, 100)?),
        ];
        // The first round is not counted.
        if round == 0 {
            continue;
        }
        for (who, times) in small {
            recorder.sample("burst-20", who, longest(&times))?;
        }
        for (who, times) in large {
            recorder.sample("burst-100", who, longest(&times))?;
            for time in times {
                recorder.sample("burst-100-each", who, ms(time))?;
            }
        }
    }
    Ok(())
}

fn longest(times: &[Duration]) -> f64 {
    times.iter().max().copied().map_or(f64::NAN, ms)
}

fn of_kiln(kiln: &Kiln, count: usize) -> Result<Vec<Duration>> {
    let clients = (0..count).map(|_| kiln.connect()).collect::<Result<Vec<_>>>()?;
    let made = at_once(clients, |connection| {
        let sandbox = create(connection, &json!({"image": BASE}))?;
        exec(connection, &sandbox, &["true"])?;
        Ok(sandbox)
    })?;
    made.iter().try_for_each(|(sandbox, _)| kiln.remove(sandbox))?;
    Ok(made.into_iter().map(|(_, time)| time).collect())
}

fn of_podman(podman: &Podman, count: usize) -> Result<Vec<Duration>> {
    let made = at_once(vec![(); count], |()| {
        let container = podman.create("localhost/base", Network::Bridge)?;
        podman.exec(&container, &["true"])?;
        Ok(container)
    })?;
    made.iter().try_for_each(|(container, _)| podman.remove(container))?;
    Ok(made.into_iter().map(|(_, time)| time).collect())
}

fn of_runc(runc: &OciRuntime, bundle: &Bundle, count: usize) -> Result<Vec<Duration>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let (id, start) = runc.start_words(bundle);
        let exec = ["exec".to_owned(), id.clone(), "true".to_owned()];
        clients.push((id, runc.command(&start), runc.command(&exec)));
    }
    let made = at_once(clients, |(id, start, exec)| {
        program::succeed(start)?;
        program::succeed(exec)?;
        Ok(id.clone())
    })?;
    made.iter().try_for_each(|(id, _)| runc.remove(id))?;
    Ok(made.into_iter().map(|(_, time)| time).collect())
}

/// Lets all clients do the same from one moment on; what each made, and how long it took.
fn at_once<C: Send, T: Send>(
    clients: Vec<C>,
    act: impl Fn(&mut C) -> Result<T> + Sync,
) -> Result<Vec<(T, Duration)>> {
    let barrier = Barrier::new(clients.len());
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let (barrier, act) = (&barrier, &act);
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    let made = act(&mut client)?;
                    Ok((made, start.elapsed()))
                })
            })
            .collect();
        let ended =
            threads.into_iter().map(|thread| thread.join().ok().context("a client panicked")?);
        // All are joined before the first error is told, so that none is left behind.
        ended.collect::<Vec<Result<_>>>().into_iter().collect()
    })
}
