//! The suite that every driver passes.

use std::sync::Arc;

use kiln_runtime::conformance::{self, Subject};
use kiln_runtime::oci::Flavour;
use kiln_runtime::{OciRuntime, RootSource, Runtime};

use super::fixture::Disk;
use super::lab::{Lab, privileged};
use super::life::driver;

struct Oci {
    lab: Lab,
    runtime: Arc<OciRuntime>,
    flavour: Flavour,
}

impl Subject for Oci {
    fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn disk(&self) -> Box<dyn conformance::Disk> {
        Box::new(self.lab.place.disk())
    }

    fn own_kernel(&self) -> bool {
        self.flavour.own_kernel()
    }

    fn outlives_exhaustion(&self) -> bool {
        !self.flavour.own_kernel()
    }
}

impl conformance::Disk for Disk {
    fn root(&self) -> Box<dyn RootSource> {
        Box::new(self.source())
    }
}

fn conforms(flavour: Flavour) {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let Some(runtime) = driver(&lab, flavour) else { return };
    let subject = Oci { lab, runtime, flavour };
    subject.lab.tokio.block_on(conformance::run(&subject));
}

#[test]
fn runc_conforms() {
    conforms(Flavour::Runc);
}

#[test]
fn crun_conforms() {
    conforms(Flavour::Crun);
}

#[test]
fn runsc_conforms() {
    conforms(Flavour::Runsc);
}
