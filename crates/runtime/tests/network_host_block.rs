//! Claims of host blocks, and the addresses and ids that follow from them.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use kiln_runtime::Slot;
use kiln_runtime::host::{HostBlock, HostError};

struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Lab {
        Lab(tempfile::tempdir().unwrap())
    }

    fn data(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn claim(&self, name: &str) -> Result<HostBlock, HostError> {
        HostBlock::claim(&self.0.path().join("run/blocks"), &self.data(name))
    }
}

#[test]
fn a_daemon_gets_its_block_again() {
    let lab = Lab::new();
    let first = lab.claim("a").unwrap();
    let second = lab.claim("b").unwrap();
    assert_eq!((first.number(), second.number()), (0, 1));
    assert_eq!(lab.claim("b").unwrap(), second);
    // By another name of the same directory.
    std::os::unix::fs::symlink(lab.data("b"), lab.0.path().join("link")).unwrap();
    assert_eq!(lab.claim("link").unwrap(), second);
}

#[test]
fn released_and_orphaned_blocks_are_free_again() {
    let lab = Lab::new();
    let first = lab.claim("a").unwrap();
    lab.claim("b").unwrap();
    lab.claim("c").unwrap();
    fs::remove_dir(lab.data("b")).unwrap();
    assert_eq!(lab.claim("d").unwrap().number(), 1);
    first.clone().release().unwrap();
    assert_eq!(lab.claim("e").unwrap().number(), 0);
    // Somebody else has it by now.
    first.release().unwrap();
    assert_eq!(lab.claim("e").unwrap().number(), 0);
}

#[test]
fn a_full_host_says_what_to_do() {
    let lab = Lab::new();
    for number in 0..HostBlock::COUNT {
        assert_eq!(lab.claim(&format!("d{number}")).unwrap().number(), number);
    }
    let error = lab.claim("late").unwrap_err();
    assert!(matches!(error, HostError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("delete the claim file"), "{error}");
    assert_eq!(lab.claim("d13").unwrap().number(), 13, "an owner is not turned away");
}

#[test]
fn claims_at_the_same_time_differ() {
    let lab = Lab::new();
    let claim = |number: u8| lab.claim(&format!("d{number}")).unwrap().number();
    let claim = &claim;
    let numbers: BTreeSet<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..HostBlock::COUNT).map(|number| scope.spawn(move || claim(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(numbers, (0..HostBlock::COUNT).collect());
}

#[test]
fn a_missing_data_directory_is_named() {
    let lab = Lab::new();
    let missing = lab.0.path().join("missing");
    let error = HostBlock::claim(&lab.0.path().join("run"), &missing).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn no_two_slots_share_ids_or_addresses() {
    let lab = Lab::new();
    let (mut next_id, mut next_address) = (0x1000_0000, Ipv4Addr::new(10, 212, 0, 0).to_bits());
    let mut names = BTreeSet::new();
    for number in 0..HostBlock::COUNT {
        let block = lab.claim(&format!("d{number}")).unwrap();
        assert_eq!(block.subnet().to_bits(), next_address);
        for slot in (0..Slot::COUNT).map(Slot) {
            assert_eq!(block.id_base(slot), next_id);
            assert_eq!(block.gateway(slot).to_bits(), next_address + 1);
            assert_eq!(block.guest(slot).to_bits(), next_address + 2);
            assert!(block.interface(slot).len() <= 15);
            assert!(names.insert(block.interface(slot)));
            next_id += 65_536;
            next_address += 4;
        }
    }
    assert!(Ipv4Addr::from_bits(next_address) <= Ipv4Addr::new(10, 216, 0, 0));
}
