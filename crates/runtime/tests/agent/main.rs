//! The host end against the real, static agent, started as an ordinary process, as PID 1 of a PID
//! namespace, and inside a root that has nothing but busybox.

mod connection;
mod exec;
mod exec_output;
mod exec_start;
mod files;
mod guest;
mod hostile;
mod lying;
mod measure;
mod pid_one;
mod rights;
mod shutdown;
mod terminal;
