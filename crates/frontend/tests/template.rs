//! Templates, translated.

use std::collections::BTreeMap;

use kiln_frontend::{FrontendError, template};
use kiln_types::{Base, ErrorCode, RunCommand, Step, TemplateSpec};

fn spec() -> TemplateSpec {
    TemplateSpec {
        name: "python-ml".into(),
        base_image: "debian-12".into(),
        apt_packages: vec!["python3".into(), "git".into()],
        setup_commands: vec![
            "pip install torch numpy --break-system-packages".into(),
            "true && true".into(),
        ],
        env: BTreeMap::from([("PYTHONDONTWRITEBYTECODE".into(), "1".into())]),
        vcpu: Some(2),
        memory_mib: Some(2048),
    }
}

fn shell(text: &str) -> Step {
    Step::Run { command: RunCommand::Shell(text.into()) }
}

#[test]
fn s4_3_a_template_becomes_steps_in_a_fixed_order() {
    let translated = template::translate(&spec(), false).unwrap();
    assert_eq!(translated.name.to_string(), "python-ml:latest");
    assert_eq!((translated.defaults.vcpu, translated.defaults.memory_mib), (Some(2), Some(2048)));
    assert_eq!(translated.definition.base, Base::Catalog("debian-12".into()));
    assert_eq!(
        translated.definition.steps,
        [
            Step::Env { vars: spec().env },
            Step::Apt { packages: spec().apt_packages },
            shell("pip install torch numpy --break-system-packages"),
            shell("true && true"),
            Step::Workdir { path: "/workspace".into() },
        ]
    );
}

#[test]
fn what_is_absent_makes_no_step() {
    let json = r#"{ "name": "x:v1", "base_image": "debian:12" }"#;
    let spec: TemplateSpec = serde_json::from_str(json).unwrap();
    let translated = template::translate(&spec, false).unwrap();
    assert_eq!(translated.definition.steps, [Step::Workdir { path: "/workspace".into() }]);
    assert_eq!(translated.defaults, template::Defaults::default());
}

#[test]
fn sizes_and_names_are_no_part_of_the_definition() {
    let other = TemplateSpec { name: "other".into(), vcpu: None, memory_mib: Some(512), ..spec() };
    assert_eq!(
        template::translate(&spec(), false).unwrap().definition,
        template::translate(&other, false).unwrap().definition
    );
}

#[test]
fn bad_fields_are_named_with_value_and_way_out() {
    type Change = fn(&mut TemplateSpec);
    let cases: &[(&str, &str, Change)] = &[
        ("name", "it is empty", |spec| spec.name = String::new()),
        ("name `Python`", "upper-case", |spec| spec.name = "Python".into()),
        ("name `a:b:c!`", "tag", |spec| spec.name = "a:b:c!".into()),
        ("base_image", "it is empty", |spec| spec.base_image = String::new()),
        ("base_image `./x`", "relative", |spec| spec.base_image = "./x".into()),
        ("apt_packages[1] ``", "is empty", |spec| spec.apt_packages[1] = String::new()),
        ("apt_packages[0] `-y`", "option", |spec| spec.apt_packages[0] = "-y".into()),
        ("apt_packages[0] `git curl`", "space", |spec| spec.apt_packages[0] = "git curl".into()),
        ("apt_packages[0] `git;id`", "not a package", |spec| {
            spec.apt_packages[0] = "git;id".into();
        }),
        ("setup_commands[1]", "empty command", |spec| spec.setup_commands[1] = "  ".into()),
        ("setup_commands[0]", "NUL", |spec| spec.setup_commands[0] = "a\0b".into()),
        ("setup_commands", "200 elements", |spec| spec.setup_commands = vec!["true".into(); 200]),
        ("env `1A`", "not the name", |spec| drop(spec.env.insert("1A".into(), String::new()))),
        ("env `A=B`", "not the name", |spec| drop(spec.env.insert("A=B".into(), String::new()))),
        ("env.A", "NUL", |spec| drop(spec.env.insert("A".into(), "\0".into()))),
        ("vcpu `0`", "out of range", |spec| spec.vcpu = Some(0)),
        ("vcpu `100000`", "out of range", |spec| spec.vcpu = Some(100_000)),
        ("memory_mib `0`", "out of range", |spec| spec.memory_mib = Some(0)),
        ("memory_mib `4294967295`", "out of range", |spec| spec.memory_mib = Some(u32::MAX)),
    ];
    for (field, problem, change) in cases {
        let mut spec = spec();
        change(&mut spec);
        let error = template::translate(&spec, false).unwrap_err();
        assert!(matches!(error, FrontendError::Field(_)), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidDefinition);
        let text = error.to_string();
        assert!(text.starts_with(field.trim_end_matches(" ``")), "{field}: {text}");
        assert!(text.contains(problem), "{problem}: {text}");
        assert!(!text.contains('\0'), "{text:?}");
    }
}
