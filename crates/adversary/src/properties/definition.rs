//! Image definitions.

use kiln_frontend::FrontendError;
use kiln_frontend::definition::validate;
use kiln_types::{ImageConfig, ImageDefinition, canonical_json};

/// Reads the bytes as a definition.
pub(super) fn check(bytes: &[u8]) {
    if let Ok(definition) = serde_json::from_slice::<ImageDefinition>(bytes) {
        check_definition(&definition);
    }
}

/// Checks a definition, valid or not.
pub(super) fn check_definition(definition: &ImageDefinition) {
    let canonical = canonical_json(definition);
    let again: ImageDefinition =
        serde_json::from_slice(&canonical).expect("the canonical form can be read");
    assert_eq!(&again, definition);
    assert_eq!(canonical_json(&again), canonical, "the canonical form is stable");
    let config = ImageConfig::default();
    assert_eq!(again.key(None, &config), definition.key(None, &config), "one meaning, one key");

    let (strict, literal) = (validate(definition, false), validate(definition, true));
    match (&strict, &literal) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(error)) => panic!("literal operators are stricter than none: {error}"),
        (Err(error), _) => assert_refusal(error),
    }
    if let Err(error) = &literal {
        assert_refusal(error);
    }
    assert_eq!(validate(&again, false), strict);
}

pub(super) fn assert_refusal(error: &FrontendError) {
    super::assert_printable(error);
    assert!(error.to_string().len() < 2_000, "an endless message");
    let problem = error.problem();
    let text = serde_json::to_string(&problem).expect("a problem has a JSON form");
    assert!(text.len() < 10_000, "an endless answer");
}
