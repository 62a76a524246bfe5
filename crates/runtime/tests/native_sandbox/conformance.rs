//! The suite that every driver passes.

use kiln_runtime::conformance::{self, Subject};
use kiln_runtime::{RootSource, Runtime};

use super::fixture::Disk;
use super::lab::{Lab, privileged};

struct Native(Lab);

impl Subject for Native {
    fn runtime(&self) -> &dyn Runtime {
        &*self.0.runtime
    }

    fn disk(&self) -> Box<dyn conformance::Disk> {
        Box::new(self.0.place.disk())
    }
}

impl conformance::Disk for Disk {
    fn root(&self) -> Box<dyn RootSource> {
        Box::new(self.source())
    }
}

#[test]
fn conforms() {
    if !privileged() {
        return;
    }
    let subject = Native(Lab::new());
    subject.0.tokio.block_on(conformance::run(&subject));
}
