//! From a request to the strings of a process: paths to try, arguments, environment.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use kiln_protocol::{ExecRequest, StartErrorKind, Text};

use super::failure::StartError;
use crate::users::Identity;

/// Where programs are when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a terminal is taken for when the environment does not say.
const DEFAULT_TERM: &str = "xterm";

/// The strings of a process.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// The `PATH` that was searched; `None` for a name with a slash.
    searched: Option<Vec<u8>>,
}

impl Program {
    pub(crate) fn new(request: &ExecRequest, identity: &Identity) -> Result<Self, StartError> {
        let invalid = |message: &str| StartError::new(StartErrorKind::InvalidArgument, message);
        let argv = request
            .argv
            .iter()
            .enumerate()
            .map(|(index, text)| c_string(&format!("argv[{index}]"), text.as_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let name = argv.first().ok_or_else(|| invalid("argv is empty"))?;
        if name.is_empty() {
            return Err(invalid("argv[0] is empty"));
        }
        let env = environment(request, identity)?;
        if name.as_bytes().contains(&b'/') {
            return Ok(Self { candidates: vec![name.clone()], argv, env, searched: None });
        }
        let path = value(&request.env, "PATH").unwrap_or(DEFAULT_PATH.as_bytes()).to_vec();
        let candidates = candidates(&path, name.as_bytes())?;
        Ok(Self { candidates, argv, env, searched: Some(path) })
    }

    pub(crate) fn name(&self) -> String {
        self.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// That there is no such program, in words.
    pub(crate) fn absence(&self) -> String {
        match &self.searched {
            Some(path) => format!("no such program in PATH={}", String::from_utf8_lossy(path)),
            None => "no such file in the sandbox".to_owned(),
        }
    }
}

/// As `execvp`: an empty component is the working directory.
fn candidates(path: &[u8], name: &[u8]) -> Result<Vec<CString>, StartError> {
    let components = path.split(|byte| *byte == b':');
    let paths = components.map(|directory| {
        let directory = if directory.is_empty() { b"." } else { directory };
        c_string("PATH", &[directory, b"/", name].concat())
    });
    paths.collect()
}

fn environment(request: &ExecRequest, identity: &Identity) -> Result<Vec<CString>, StartError> {
    let mut env = Vec::with_capacity(request.env.len() + 4);
    for (name, value) in &request.env {
        if name.as_bytes().is_empty() || name.as_bytes().contains(&b'=') {
            return Err(StartError::new(
                StartErrorKind::InvalidArgument,
                format!("environment variable name {name:?} is empty or has a `=`"),
            ));
        }
        let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
        env.push(c_string(&format!("environment variable {name}"), &pair)?);
    }
    let mut add = |name: &str, default: &OsStr| {
        if value(&request.env, name).is_none() {
            let pair = [name.as_bytes(), b"=", default.as_bytes()].concat();
            env.push(c_string(name, &pair)?);
        }
        Ok::<_, StartError>(())
    };
    add("HOME", &identity.home)?;
    if let Some(name) = &identity.name {
        add("USER", name)?;
        add("LOGNAME", name)?;
    }
    if request.pty.is_some() {
        add("TERM", OsStr::new(DEFAULT_TERM))?;
    }
    Ok(env)
}

/// The first variable of a name: what `getenv` finds.
fn value<'a>(env: &'a [(Text, Text)], name: &str) -> Option<&'a [u8]> {
    let found = env.iter().find(|(candidate, _)| candidate.as_bytes() == name.as_bytes());
    found.map(|(_, value)| value.as_bytes())
}

fn c_string(what: &str, bytes: &[u8]) -> Result<CString, StartError> {
    CString::new(bytes).map_err(|error| {
        StartError::new(
            StartErrorKind::InvalidArgument,
            format!("{what} has a NUL byte at offset {}", error.nul_position()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            uid: 1,
            gid: 1,
            groups: vec![1],
            name: Some("ada".into()),
            home: "/home/ada".into(),
        }
    }

    fn request(argv: &[&str], env: &[(&str, &str)]) -> ExecRequest {
        ExecRequest {
            argv: argv.iter().map(|text| Text::from(*text)).collect(),
            env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..ExecRequest::default()
        }
    }

    fn strings(list: &[CString]) -> Vec<&str> {
        list.iter().map(|string| string.to_str().unwrap()).collect()
    }

    #[test]
    fn programs_are_searched_where_the_environment_says() {
        let cases: [(&str, Option<&str>, &[&str]); 4] = [
            ("ls", Some("/a::b"), &["/a/ls", "./ls", "b/ls"]),
            ("ls", Some(""), &["./ls"]),
            ("./ls", Some("/a"), &["./ls"]),
            ("/x/ls", None, &["/x/ls"]),
        ];
        for (name, path, expected) in cases {
            let env: Vec<_> = path.map(|path| ("PATH", path)).into_iter().collect();
            let program = Program::new(&request(&[name], &env), &identity()).unwrap();
            assert_eq!(strings(&program.candidates), expected, "{name} {path:?}");
        }
        let program = Program::new(&request(&["ls"], &[]), &identity()).unwrap();
        assert_eq!(program.candidates.len(), 6);
    }

    #[test]
    fn the_user_is_added_to_the_environment_only_where_it_lacks() {
        let program =
            Program::new(&request(&["a"], &[("HOME", "/x"), ("A", "b=c\n'\"")]), &identity())
                .unwrap();
        assert_eq!(strings(&program.env), ["HOME=/x", "A=b=c\n'\"", "USER=ada", "LOGNAME=ada"]);
    }

    #[test]
    fn what_no_process_can_have_is_refused_by_name() {
        let cases = [
            (request(&[], &[]), "argv is empty"),
            (request(&[""], &[]), "argv[0]"),
            (request(&["a", "b\0"], &[]), "argv[1]"),
            (request(&["a"], &[("", "x")]), "name"),
            (request(&["a"], &[("A=B", "x")]), "A=B"),
            (request(&["a"], &[("A", "\0")]), "variable A"),
        ];
        for (request, named) in cases {
            let error = Program::new(&request, &identity()).unwrap_err();
            assert_eq!(error.kind, StartErrorKind::InvalidArgument);
            assert!(error.message.contains(named), "{}", error.message);
        }
    }
}
