//! What a group has used.

use super::control::{read_keyed, read_number};
use super::{CgroupError, Group};

impl Group {
    /// Memory in use, page cache included, in bytes.
    pub fn memory_usage(&self) -> Result<u64, CgroupError> {
        match (self.v1_of("memory"), &self.v2) {
            (Some(path), _) => read_number(&path.join("memory.usage_in_bytes")),
            (None, Some(path)) => read_number(&path.join("memory.current")),
            (None, None) => Err(self.no_memory()),
        }
    }

    /// How many processes the kernel has killed here for want of memory.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        match (self.v1_of("memory"), &self.v2) {
            (Some(path), _) => read_keyed(&path.join("memory.oom_control"), "oom_kill"),
            (None, Some(path)) => read_keyed(&path.join("memory.events"), "oom_kill"),
            (None, None) => Err(self.no_memory()),
        }
    }

    fn no_memory(&self) -> CgroupError {
        CgroupError::Controller { controller: "memory", root: self.path() }
    }
}
