//! From rules to a BPF program of the classic kind, as seccomp takes it.

/// What is to be done about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Let it through.
    Allow,
    /// Let it through if the condition holds, else fail with `EPERM`.
    AllowIf(Condition),
    /// Fail with this error number.
    Fail(i32),
}

/// A condition on the lower 32 bits of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, from 0.
    pub(super) argument: u32,
    pub(super) test: Test,
}

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// It has none of these bits.
    NoneOf(u32),
    /// It is one of these.
    In(&'static [u32]),
    /// It is not one of these.
    NotIn(&'static [u32]),
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_BITS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Numbers from `first` on, up to the next range, that are treated alike.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    action: Action,
}

/// The program: `rules` for single calls (the last one counts), `EPERM` for other calls up to
/// `last_known`, `ENOSYS` above.
pub(super) fn assemble(mut rules: Vec<(u32, Action)>, last_known: u32) -> Vec<libc::sock_filter> {
    rules.reverse();
    rules.sort_by_key(|rule| rule.0);
    rules.dedup_by_key(|rule| rule.0);
    let mut ranges: Vec<Range> = Vec::new();
    let mut push = |first: u32, action: Action| {
        if ranges.last().is_none_or(|last| last.action != action) {
            ranges.push(Range { first, action });
        }
    };
    let mut next = 0;
    for (number, action) in rules {
        if number > next {
            push(next, Action::Fail(libc::EPERM));
        }
        push(number, action);
        next = number + 1;
    }
    if next <= last_known {
        push(next, Action::Fail(libc::EPERM));
    }
    push(last_known + 1, Action::Fail(libc::ENOSYS));

    let mut program = vec![
        step(LOAD, ARCH),
        branch(IF_EQUAL, ARCHITECTURE, 1, 0),
        step(RETURN, KILL),
        step(LOAD, NUMBER),
    ];
    search(&ranges, &mut program);
    program
}

/// Finds the range of the number that is loaded, by halves.
fn search(ranges: &[Range], program: &mut Vec<libc::sock_filter>) {
    if let [only] = ranges {
        return act(only.action, program);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    program.push(branch(IF_AT_LEAST, upper[0].first, 0, 1));
    // The jump is a step of its own, since those of a branch reach only 255 steps.
    let jump = program.len();
    program.push(step(JUMP, 0));
    search(lower, program);
    program[jump].k = (program.len() - jump - 1) as u32;
    search(upper, program);
}

fn act(action: Action, program: &mut Vec<libc::sock_filter>) {
    let refuse = |errno: i32| step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32);
    match action {
        Action::Allow => program.push(step(RETURN, ALLOW)),
        Action::Fail(errno) => program.push(refuse(errno)),
        Action::AllowIf(Condition { argument, test }) => {
            program.push(step(LOAD, ARGUMENTS + 8 * argument));
            let (first, second) = match test {
                Test::NoneOf(bits) => {
                    program.push(branch(IF_BITS, bits, 1, 0));
                    (step(RETURN, ALLOW), refuse(libc::EPERM))
                }
                Test::In(values) => {
                    compare(values, program);
                    (refuse(libc::EPERM), step(RETURN, ALLOW))
                }
                Test::NotIn(values) => {
                    compare(values, program);
                    (step(RETURN, ALLOW), refuse(libc::EPERM))
                }
            };
            program.extend([first, second]);
        }
    }
}

/// Goes on with the step after the next one if what is loaded is one of `values`.
fn compare(values: &[u32], program: &mut Vec<libc::sock_filter>) {
    for (index, value) in values.iter().enumerate() {
        program.push(branch(IF_EQUAL, *value, (values.len() - index) as u8, 0));
    }
}

fn step(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
pub(super) mod run {
    //! The kernel's interpreter, as far as these programs need it.

    pub(in crate::seccomp) const ALLOW: u32 = super::ALLOW;

    pub(in crate::seccomp) fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number as u32
    }

    pub(in crate::seccomp) fn run(program: &[libc::sock_filter], number: u32, first: u64) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let now = program[at];
            at += 1;
            let holds = match now.code {
                super::LOAD => {
                    loaded = match now.k {
                        super::NUMBER => number,
                        super::ARCH => super::ARCHITECTURE,
                        super::ARGUMENTS => first as u32,
                        other => panic!("loads offset {other}"),
                    };
                    continue;
                }
                super::JUMP => {
                    at += now.k as usize;
                    continue;
                }
                super::RETURN => return now.k,
                super::IF_EQUAL => loaded == now.k,
                super::IF_AT_LEAST => loaded >= now.k,
                super::IF_BITS => loaded & now.k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if holds { now.jt } else { now.jf });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::run::run;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_its_rules(
            rules in proptest::collection::btree_map(0u32..500, 0u8..3, 0..300),
            probes in proptest::collection::vec(0u32..700, 50),
        ) {
            let condition = Condition { argument: 0, test: Test::In(&[7, 9]) };
            let actions = [Action::Allow, Action::Fail(5), Action::AllowIf(condition)];
            let list = rules.iter().map(|(number, which)| (*number, actions[*which as usize]));
            let program = assemble(list.collect(), 600);
            for number in probes {
                let wanted = |first: u64| match rules.get(&number) {
                    Some(0) => ALLOW,
                    Some(1) => run::errno(5),
                    Some(_) if first == 7 || first == 9 => ALLOW,
                    None if number > 600 => run::errno(libc::ENOSYS),
                    _ => run::errno(libc::EPERM),
                };
                for first in [7, 8, 9] {
                    prop_assert_eq!(run(&program, number, first), wanted(first));
                }
            }
        }
    }
}
