//! Kiln's drivers that start sandboxes by another runtime.

use anyhow::Result;

use crate::interrupt;
use crate::kiln::Kiln;
use crate::record::Recorder;
use crate::rig::BASE;
use crate::turns::Cost;

/// A driver that can be used here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Driver {
    /// Its name in a request.
    pub name: &'static str,
    /// What it is called in the table.
    pub title: &'static str,
    /// What it costs to make a sandbox.
    pub cost: Cost,
}

const DRIVERS: [Driver; 3] = [
    Driver { name: "runc", title: "kiln, driver=runc", cost: Cost::Middle },
    Driver { name: "crun", title: "kiln, driver=crun", cost: Cost::Middle },
    Driver { name: "runsc", title: "kiln, driver=runsc", cost: Cost::High },
];

/// Those with which a sandbox can be made; a note says what is in the way of the others.
pub(super) fn drivers(recorder: &mut Recorder, kiln: &Kiln, row: &str) -> Result<Vec<Driver>> {
    let mut usable = Vec::new();
    for driver in DRIVERS {
        interrupt::check()?;
        let tried = kiln.create_by(BASE, driver.name);
        match tried.and_then(|sandbox| kiln.remove(&sandbox)) {
            Ok(()) => usable.push(driver),
            Err(error) => recorder.note(row, &format!("without {}: {error:#}", driver.title))?,
        }
    }
    Ok(usable)
}
