//! Templates.

use kiln_frontend::definition::validate;
use kiln_frontend::template::translate;
use kiln_types::{TemplateSpec, canonical_json};

use super::definition::{assert_refusal, check_definition};

/// Reads the bytes as a template and translates it.
pub(super) fn check(bytes: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<TemplateSpec>(bytes) else { return };
    let canonical = canonical_json(&spec);
    let again: TemplateSpec =
        serde_json::from_slice(&canonical).expect("the canonical form can be read");
    assert_eq!(again, spec);
    assert_eq!(canonical_json(&again), canonical, "the canonical form is stable");
    let translated = translate(&spec, false);
    assert_eq!(translate(&again, false), translated, "one meaning, one translation");
    match translated {
        Ok(translated) => {
            validate(&translated.definition, false).expect("what is translated can be built");
            check_definition(&translated.definition);
            assert_eq!(translate(&spec, true).expect("literal is laxer"), translated);
        }
        Err(error) => assert_refusal(&error),
    }
}
