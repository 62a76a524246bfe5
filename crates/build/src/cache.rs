//! What of a definition is in the cache already.

use kiln_images::{ImageStore, ImagesError, LayerHold};
use kiln_types::error::ErrorCode;
use kiln_types::{ChainId, DiffId, ImageConfig, Step, StepKey};

use crate::step::configure;

/// The key of every prefix of `steps`, and of the whole, on a base. (A file step's content is a part of
/// the step itself, so no step has further inputs.)
pub(crate) fn keys(base: &[DiffId], config: &ImageConfig, steps: &[Step]) -> Vec<StepKey> {
    let start = StepKey::base(ChainId::of(base).as_ref(), config);
    steps
        .iter()
        .scan(start, |key, step| {
            *key = key.then(step, &[]);
            Some(*key)
        })
        .collect()
}

/// The config after `steps`.
pub(crate) fn config_after(config: &ImageConfig, steps: &[Step]) -> ImageConfig {
    let mut config = config.clone();
    for step in steps {
        configure(step, &mut config);
    }
    config
}

/// The longest prefix of a definition whose results are there and whole.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// For each step of it, the layer that it made.
    pub(crate) steps: Vec<Option<DiffId>>,
    /// The layers that these are, and those of the base, are not removed as long as this lives.
    pub(crate) hold: LayerHold,
    /// How many more steps had results, but damaged ones.
    pub(crate) damaged: usize,
}

/// Looks for the results of `keys` on the layers `base`.
///
/// # Errors
/// When the base itself is not whole, or the database fails.
pub(crate) async fn longest_prefix(
    store: &ImageStore,
    base: &[DiffId],
    keys: &[StepKey],
) -> Result<Prefix, ImagesError> {
    let mut steps = Vec::new();
    for key in keys {
        let found = store
            .metadata()
            .get_step(key)
            .await
            .map_err(|source| ImagesError::Metadata { action: "look up a step", source })?;
        match found {
            Some(found) => steps.push(found.layer),
            None => break,
        }
    }
    let layers = |steps: &[Option<DiffId>]| -> Vec<DiffId> {
        base.iter().copied().chain(steps.iter().flatten().copied()).collect()
    };
    let hold = store.hold(&layers(&steps)).await;
    let recorded = steps.len();
    loop {
        match store.prove_layers(&layers(&steps)).await {
            Ok(_) => break,
            // A hit that cannot be mounted is none. The topmost layer is the first suspect; a damaged
            // base ends the search.
            Err(error) if error.code() == ErrorCode::StoreCorrupt && !steps.is_empty() => {
                while let Some(None) = steps.pop() {}
            }
            Err(error) => return Err(error),
        }
    }
    // What is of use is kept for longer; if that is not noted, it is only made again earlier.
    if !steps.is_empty()
        && let Err(error) = store.metadata().touch_steps(&keys[..steps.len()]).await
    {
        tracing::warn!(%error, "the use of cached steps is not noted");
    }
    Ok(Prefix { damaged: recorded - steps.len(), steps, hold })
}

#[cfg(test)]
mod tests {
    use kiln_types::{Digest, RunCommand};
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            "[a-c]{1,2}".prop_map(|text| Step::Run { command: RunCommand::Shell(text) }),
            "[a-c]{1,2}".prop_map(|text| Step::Run { command: RunCommand::Argv(vec![text]) }),
            "[a-c]{1,2}".prop_map(|text| Step::Apt { packages: vec![text] }),
            "[a-c]{1,2}".prop_map(|text| Step::Pip { packages: vec![text] }),
            "[a-c]{1,2}".prop_map(|text| Step::Workdir { path: text }),
            "[a-c]{1,2}".prop_map(|text| Step::Env { vars: [(text, "x".to_owned())].into() }),
        ]
    }

    proptest! {
        /// Definitions share keys exactly as far as their steps are the same.
        #[test]
        fn keys_are_those_of_prefixes(
            one in proptest::collection::vec(step(), 0..8),
            two in proptest::collection::vec(step(), 0..8),
        ) {
            let base = [DiffId(Digest::of("base"))];
            let config = ImageConfig::default();
            let (first, second) = (keys(&base, &config, &one), keys(&base, &config, &two));
            prop_assert_eq!(first.len(), one.len());
            let same = one.iter().zip(&two).take_while(|(one, two)| one == two).count();
            prop_assert_eq!(&first[..same], &second[..same]);
            for key in &first[same..] {
                prop_assert!(!second.contains(key));
            }
            let other = [DiffId(Digest::of("another base"))];
            for key in keys(&other, &config, &one) {
                prop_assert!(!first.contains(&key));
            }
        }
    }

    #[test]
    fn a_bases_config_is_part_of_the_keys() {
        let steps = [Step::Run { command: RunCommand::Shell("env".into()) }];
        let plain = ImageConfig::default();
        let other = ImageConfig { env: [("A".into(), "1".into())].into(), ..plain.clone() };
        assert_ne!(keys(&[], &plain, &steps), keys(&[], &other, &steps));
    }

    #[test]
    fn the_worked_example_of_the_documentation() {
        let steps: Vec<Step> = serde_json::from_str(
            r#"[
                { "type": "env", "vars": { "GREETING": "hello" } },
                { "type": "run", "command": { "shell": "echo $GREETING > /greeting" } }
            ]"#,
        )
        .unwrap();
        let base = [DiffId(Digest::of("base layer"))];
        let chain = ChainId::of(&base);
        let config = ImageConfig::default();
        let page = include_str!("../../../docs/cache-keys.md");
        let mut shown = vec![base[0].0, StepKey::base(chain.as_ref(), &config).digest()];
        shown.extend(keys(&base, &config, &steps).iter().map(StepKey::digest));
        let definition = kiln_types::ImageDefinition {
            base: kiln_types::Base::Catalog("debian-12".into()),
            steps,
        };
        shown.push(definition.key(chain.as_ref(), &config));
        for digest in shown {
            assert!(page.contains(&digest.to_string()), "{digest} is not on the page");
        }
    }
}
