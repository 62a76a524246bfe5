//! The rules of definitions.

use std::collections::BTreeMap;

use kiln_frontend::definition::validate;
use kiln_frontend::{FrontendError, argv};
use kiln_types::{Base, ErrorCode, FileStep, ImageDefinition, RunCommand, Step};
use proptest::prelude::*;

fn definition(step: Step) -> ImageDefinition {
    let fine = Step::Run { command: RunCommand::Shell("true".into()) };
    ImageDefinition { base: Base::Catalog("debian-12".into()), steps: vec![fine, step] }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn apt(package: &str) -> Step {
    Step::Apt { packages: strings(&[package]) }
}

fn pip(package: &str) -> Step {
    Step::Pip { packages: strings(&[package]) }
}

fn npm(package: &str) -> Step {
    Step::Npm { packages: strings(&[package]) }
}

fn run(words: &[&str]) -> Step {
    Step::Run { command: RunCommand::Argv(strings(words)) }
}

fn file(path: &str, content: &str, mode: u32) -> Step {
    Step::File(FileStep { path: path.into(), content_base64: content.into(), mode })
}

fn env(name: &str, value: &str) -> Step {
    Step::Env { vars: [(name.to_owned(), value.to_owned())].into() }
}

fn user(user: &str) -> Step {
    Step::User { user: user.into() }
}

fn workdir(path: &str) -> Step {
    Step::Workdir { path: path.into() }
}

#[test]
fn what_is_right_passes() {
    for step in [
        apt("python3"),
        apt("g++"),
        apt("libstdc++6"),
        apt("libc6:i386"),
        apt("git=1:2.39.5-0+deb12u2"),
        apt("curl/bookworm-backports"),
        pip("numpy"),
        pip("numpy>=2,<3"),
        pip("requests[socks] ~= 2.31"),
        pip("importlib-metadata; python_version < \"3.10\" and os_name == 'posix'"),
        pip("mine @ https://example.org/a/mine.whl#sha256=00"),
        pip("git+https://example.org/x.git@main#egg=x&subdirectory=y"),
        npm("@scope/tool@latest"),
        npm("typescript@^5.2"),
        run(&["echo", "a && b"]),
        run(&["find", "/tmp", "-exec", "rm", "{}", ";"]),
        file("/etc/app/config.toml", "eCA9IDEK", 0o600),
        file("/empty", "", 0o7777),
        env("GREETING", "it's \"$HOME\"\n`x` ü \u{1f600} = \\"),
        env("_x.y-z", ""),
        workdir("/srv/app data"),
        user("dev"),
        user("1000:1000"),
        user("www-data:www-data"),
        user("0"),
        Step::Cmd { argv: strings(&["python3", "-m", "http.server"]) },
    ] {
        assert_eq!(validate(&definition(step.clone()), false), Ok(()), "{step:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let long = "x".repeat(300);
    for (step, field, problem) in [
        (Step::Apt { packages: vec![] }, "packages", "is empty"),
        (apt("--allow-downgrades"), "packages[0] `--allow-downgrades`", "option"),
        (apt("Git"), "packages[0] `Git`", "not a package"),
        (apt("git-"), "packages[0] `git-`", "not a package"),
        (apt("git && reboot"), "packages[0] `git && reboot`", "space"),
        (apt("$(id)"), "packages[0] `$(id)`", "not a package"),
        (apt(&"x".repeat(2000)), "packages[0]", "too long"),
        (pip("numpy pandas"), "packages[0] `numpy pandas`", "space"),
        (pip("-r requirements.txt"), "packages[0]", "option"),
        (pip("numpy\n"), "packages[0] `numpy\\n`", "control"),
        (pip("a`id`"), "packages[0]", "not a package"),
        (npm("left-pad right-pad"), "packages[0]", "space"),
        (npm("x;id"), "packages[0] `x;id`", "not a package"),
        (run(&[]), "command.argv", "is empty"),
        (run(&["", "x"]), "command.argv[0]", "is empty"),
        (run(&["a", "b\0"]), "command.argv[1] `b\\u{0}`", "NUL"),
        (Step::Run { command: RunCommand::Shell("\n ".into()) }, "command.shell", "empty command"),
        (Step::Run { command: RunCommand::Shell("x".repeat(200_000)) }, "command.shell", "longer"),
        (file("etc/x", "", 0o644), "path `etc/x`", "not an absolute path"),
        (file("/etc/../x", "", 0o644), "path", "`..`"),
        (file("/etc/", "", 0o644), "path `/etc/`", "directory"),
        (file("/", "", 0o644), "path `/`", "directory"),
        (file(&format!("/{long}"), "", 0o644), "path", "too long"),
        (file("/etc/hosts", "", 0o644), "path `/etc/hosts`", "runtime"),
        (file("/proc/x", "", 0o644), "path `/proc/x`", "runtime"),
        (file("/x", "not base64!", 0o644), "content_base64", "base64"),
        (file("/x", "eA", 0o644), "content_base64", "base64"),
        (file("/x", "", 0o10000), "mode `10000`", "not a mode"),
        (Step::Env { vars: BTreeMap::default() }, "vars", "is empty"),
        (env("", "x"), "vars", "not the name"),
        (env("A B", "x"), "vars `A B`", "not the name"),
        (env("A", "x\0y"), "vars.A", "NUL"),
        (env("A", &"x".repeat(200_000)), "vars.A", "longer"),
        (workdir("app"), "path `app`", "not an absolute path"),
        (workdir("/a/./b"), "path", "`.`"),
        (workdir("/sys/fs"), "path", "runtime"),
        (user(""), "user", "not a user"),
        (user("a b"), "user `a b`", "not a user"),
        (user("dev:"), "user `dev:`", "not a user"),
        (user("70000"), "user `70000`", "65535"),
        (user("1:2:3"), "user", "not a user"),
        (Step::Cmd { argv: vec![] }, "argv", "is empty"),
    ] {
        let error = validate(&definition(step.clone()), true).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("steps[1].{field}")), "{step:?}: {text}");
        assert!(text.contains(problem), "{step:?}: {text}");
        assert!(text.len() < 500 && !text.contains(char::is_control), "{text:?}");
        assert_eq!(error.code(), ErrorCode::InvalidDefinition);
    }
}

#[test]
fn bases_and_counts() {
    for (base, problem) in [
        (Base::Catalog("debian-99".into()), "catalog"),
        (Base::Reference("A B".into()), "base"),
        (Base::Rootfs("relative/path".into()), "absolute"),
        (Base::Image("No".into()), "name of an image"),
    ] {
        let error = validate(&ImageDefinition { base, steps: vec![] }, false).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("base `") && text.contains(problem), "{text}");
    }
    let many = vec![Step::Run { command: RunCommand::Shell("true".into()) }; 201];
    let many = ImageDefinition { base: Base::Catalog("debian-12".into()), steps: many };
    assert!(validate(&many, false).unwrap_err().to_string().starts_with("steps has 201"));
}

#[test]
fn s0_5_operators_are_refused_unless_literal() {
    for (step, field) in [
        (run(&["apt-get", "update", "&&", "apt-get", "install", "-y", "ffmpeg"]), "command.argv"),
        (Step::Cmd { argv: strings(&["a", "|", "b"]) }, "argv"),
    ] {
        let given = definition(step);
        let error = validate(&given, false).unwrap_err();
        assert!(matches!(error, FrontendError::Operator { .. }));
        assert_eq!(error.code(), ErrorCode::ShellOperatorInArgv);
        assert!(error.to_string().starts_with(&format!("steps[1].{field}: argument")), "{error}");
        assert!(error.hint().unwrap().contains(r#"["sh", "-c", ""#), "{error}");
        assert_eq!(validate(&given, true), Ok(()));
    }
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z=/.-]{0,6}",
        "\\PC{0,6}",
        proptest::sample::select(vec![
            "'", "\"", "$HOME", "a b", "\\", "*", "~", "\n", "#x", "x=1", "{a,b}", "!!"
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A shell that gets quoted words has the words.
    #[test]
    fn quoted_words_come_back(words in proptest::collection::vec(word(), 0..6)) {
        let quoted: Vec<String> = words.iter().map(|word| argv::quoted(word)).collect();
        let script = format!("printf '%s\\0' {}", quoted.join(" "));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        // Without words, printf prints its format once.
        let expected = format!("{}\0", words.join("\0"));
        prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    /// The working form has no operator of its own, and keeps every word that is none.
    #[test]
    fn working_forms_work(
        before in proptest::collection::vec("[a-z ']{1,5}", 1..4),
        operator in proptest::sample::select(vec!["&&", "||", "|", ";", ">", ">>", "<", "2>", "&"]),
        after in proptest::collection::vec("[a-z ']{1,5}", 0..4),
    ) {
        let mut words = before.clone();
        words.push(operator.to_owned());
        words.extend(after.clone());
        let error = argv::check(&words).unwrap_err();
        prop_assert_eq!((error.position, error.operator), (before.len(), operator));
        prop_assert_eq!(argv::check(&error.working_form), Ok(()));
        let script = &error.working_form[2];
        for word in before.iter().chain(&after) {
            prop_assert!(script.contains(&argv::quoted(word)));
        }
    }

    /// Whatever a definition holds, checking it answers, and what passes has a key.
    #[test]
    fn validation_never_panics(
        text in "\\PC{0,40}",
        other in "[-a-z0-9@/:=+.~^<>;&| ]{0,20}",
        mode in any::<u32>(),
        literal in any::<bool>(),
    ) {
        for step in [
            apt(&text), apt(&other), pip(&text), pip(&other), npm(&text), npm(&other),
            run(&[&text, &other]), file(&text, &other, mode), file(&format!("/{other}"), "", mode),
            env(&other, &text), env(&text, &other), workdir(&text), user(&text), user(&other),
        ] {
            if let Err(error) = validate(&definition(step), literal) {
                prop_assert!(error.to_string().starts_with("steps[1]."));
            }
        }
    }
}
