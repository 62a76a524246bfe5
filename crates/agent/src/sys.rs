//! What only the C library or the kernel can do: the one module with `unsafe` code.
#![allow(unsafe_code, reason = "fork, descriptors by number and allocator settings")]

mod descriptors;
mod launch;
mod memory;

pub(crate) use descriptors::{
    DescriptorLimit, adopt_orphans, raise_descriptor_limit, register, signal_everything,
    signal_group, take_descriptor,
};
pub(crate) use launch::{Launch, Report, Stage, Stdio, read_report};
pub(crate) use memory::{trim_memory, tune_memory};
