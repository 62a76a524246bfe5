//! Garbage: some to be removed, its removal, and what has to be true of it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use kiln_client::Client;
use kiln_types::api::{GcItem, GcRequest};

use crate::epoch::Epoch;
use crate::operation::{Failed, build};
use crate::world::{Image, There};

/// What two collections of one point share, as far as the harness is concerned.
pub(crate) const SUBJECT: &str = "garbage";
/// An image that is made again and again: what had its name before is garbage.
const WASTE: &str = "waste";

/// How much is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Much {
    /// What is older than the configuration says.
    Old,
    /// What is not in use at this moment.
    Unused,
    /// All that nothing needs.
    All,
}

/// How a dry run is compared with what goes then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Not at all: other operations change what there is.
    Nothing,
    /// Something that it said may stay, by the fault, but nothing else goes.
    Most,
    /// Exactly this goes.
    All,
}

/// `kiln gc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Collection {
    pub(crate) much: Much,
    /// What a dry run says of it.
    pub(crate) said: Said,
}

impl Collection {
    fn request(self, dry_run: bool) -> GcRequest {
        GcRequest {
            dry_run,
            all: self.much == Much::All,
            keep_hours: (self.much == Much::Unused).then_some(0),
        }
    }

    /// Collects, unless other operations run as well after a dry run.
    pub(crate) async fn run(self, client: &Client) -> Result<(), Failed> {
        if self.said == Said::Nothing {
            client.gc(&self.request(false)).await?;
            return Ok(());
        }
        let said = sorted(client.gc(&self.request(true)).await?.items);
        let gone = sorted(client.gc(&self.request(false)).await?.items);
        let (only_said, only_gone) = (without(&said, &gone), without(&gone, &said));
        if !only_gone.is_empty() || self.said == Said::All && said != gone {
            let text = format!("a dry run said {only_said:?}, but what went is {only_gone:?}");
            return Err(Failed::Wrong(text));
        }
        Ok(())
    }
}

fn sorted(mut items: Vec<GcItem>) -> Vec<GcItem> {
    items.sort_by(|a, b| (a.kind, &a.subject).cmp(&(b.kind, &b.subject)));
    items
}

fn without(items: &[GcItem], others: &[GcItem]) -> Vec<GcItem> {
    items.iter().filter(|item| !others.contains(item)).cloned().collect()
}

/// Makes garbage of all kinds: an image whose name another one takes, what a failed build leaves, and
/// what a repair has moved aside.
pub(crate) async fn litter(epoch: &mut Epoch, rootfs: &str, number: u64) -> Result<()> {
    let client = epoch.daemon.client();
    let first = format!("mkdir -p /srv && echo waste {number} > /srv/one");
    let marker = format!("{WASTE}{number}");
    let steps = [first.clone(), format!("echo {marker} > /marker")];
    if let Err(failed) = build(client, WASTE, rootfs, &steps, false).await {
        bail!("no waste can be made: {}", text(failed));
    }
    let files = [("/marker".to_owned(), marker)].into();
    let image = Image { there: There::Yes, files, snapshot: false };
    epoch.world.images.insert(WASTE.to_owned(), image);
    let steps = [format!("{first} && echo more >> /srv/one"), "exit 1".to_owned()];
    ensure!(build(client, "failing", rootfs, &steps, false).await.is_err(), "`exit 1` succeeds");
    let aside = epoch.daemon.data().join("quarantine");
    fs::create_dir_all(&aside)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    fs::write(aside.join(format!("{now}-{number}")), vec![1; 9000])?;
    Ok(())
}

/// All that nothing needs can be removed, and then there is none.
pub(crate) async fn empties(client: &Client) -> Result<()> {
    let all = Collection { much: Much::All, said: Said::All };
    if let Err(failed) = all.run(client).await {
        bail!("all that nothing needs cannot be removed: {}", text(failed));
    }
    let left = client.gc(&all.request(true)).await.context("gc --dry-run")?;
    ensure!(left.items.is_empty(), "after a collection of all there is {:?}", left.items);
    Ok(())
}

fn text(failed: Failed) -> String {
    match failed {
        Failed::Client(error) => error.to_string(),
        Failed::Said(code, text) => format!("{code:?}: {text}"),
        Failed::Wrong(text) => text,
    }
}
