//! The store's rules on plain maps.

use std::collections::{BTreeMap, BTreeSet};

use super::Operation;

/// What an operation came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Was(bool),
    Number(u32),
    Refused(&'static str),
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::Done
    }
}

impl From<bool> for Answer {
    fn from(was: bool) -> Self {
        Self::Was(was)
    }
}

impl From<u32> for Answer {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Maps {
    pub(super) layers: BTreeSet<u8>,
    pub(super) images: BTreeMap<u8, Vec<u8>>,
    pub(super) names: BTreeMap<u8, u8>,
    pub(super) steps: BTreeMap<u8, Option<u8>>,
    /// Image and name.
    pub(super) sandboxes: BTreeMap<u8, (u8, Option<u8>)>,
    /// Slots that are taken, and by which sandbox if any.
    pub(super) slots: BTreeMap<u8, Option<u8>>,
    pub(super) snapshots: BTreeMap<u8, u8>,
}

impl Maps {
    pub(super) fn apply(&mut self, operation: &Operation) -> Answer {
        // As in a transaction: what is refused changes nothing.
        let before = self.clone();
        match self.try_apply(operation) {
            Ok(answer) => answer,
            Err(refusal) => {
                *self = before;
                Answer::Refused(refusal)
            }
        }
    }

    fn try_apply(&mut self, operation: &Operation) -> Result<Answer, &'static str> {
        use Operation as O;
        Ok(match operation {
            O::PutLayer(layer) => {
                self.layers.insert(*layer);
                Answer::Done
            }
            O::RemoveLayer(layer) => {
                if self.images.values().any(|layers| layers.contains(layer)) {
                    return Err("layer in use");
                }
                self.steps.retain(|_, of| *of != Some(*layer));
                Answer::Was(self.layers.remove(layer))
            }
            O::PutImage { image, layers, name } => {
                if layers.iter().any(|layer| !self.layers.contains(layer)) {
                    return Err("layer missing");
                }
                self.images.insert(*image, layers.clone());
                if let Some(name) = name {
                    self.name(*name, *image)?;
                }
                Answer::Done
            }
            O::RemoveImage(image) => {
                let by_sandbox = self.sandboxes.values().any(|(of, _)| of == image);
                if by_sandbox || self.snapshots.values().any(|of| of == image) {
                    return Err("image in use");
                }
                self.names.retain(|_, of| of != image);
                Answer::Was(self.images.remove(image).is_some())
            }
            O::PutName { name, image } => {
                self.name(*name, *image)?;
                Answer::Done
            }
            O::RemoveName(name) => Answer::Was(self.names.remove(name).is_some()),
            O::PutStep { step, layer } => {
                if layer.is_some_and(|layer| !self.layers.contains(&layer)) {
                    return Err("layer missing");
                }
                self.steps.insert(*step, *layer);
                Answer::Done
            }
            O::InsertSandbox { sandbox, image, name, slot } => {
                if self.has_other(*sandbox, *name) {
                    return Err("a sandbox");
                }
                if self.sandboxes.contains_key(sandbox) {
                    let own = self.sandboxes[sandbox].1;
                    return Err(if name.is_some() && own == *name { "a sandbox" } else { "query" });
                }
                self.put_sandbox(*sandbox, *image, *name, *slot)?;
                Answer::Done
            }
            O::UpdateSandbox { sandbox, image, name, slot } => {
                if !self.sandboxes.contains_key(sandbox) {
                    return Err("sandbox missing");
                }
                if self.has_other(*sandbox, *name) {
                    return Err("a sandbox");
                }
                self.put_sandbox(*sandbox, *image, *name, *slot)?;
                Answer::Done
            }
            O::RemoveSandbox(sandbox) => {
                self.slots.retain(|_, of| *of != Some(*sandbox));
                Answer::Was(self.sandboxes.remove(sandbox).is_some())
            }
            O::ReserveSlot(count) => {
                let free = (0..*count).find(|slot| !self.slots.contains_key(slot));
                let slot = free.ok_or("no slot")?;
                self.slots.insert(slot, None);
                Answer::Number(u32::from(slot))
            }
            O::ReleaseSlot(slot) => {
                if self.slots.get(slot) == Some(&None) {
                    self.slots.remove(slot);
                }
                Answer::Done
            }
            O::ReleaseUnused => {
                let before = self.slots.len();
                self.slots.retain(|_, of| of.is_some());
                Answer::Number((before - self.slots.len()) as u32)
            }
            O::InsertSnapshot { name, image } => {
                if self.snapshots.contains_key(name) {
                    return Err("a snapshot");
                }
                self.has_image(*image)?;
                if self.names.get(name).is_some_and(|of| of != image) {
                    return Err("an image");
                }
                self.snapshots.insert(*name, *image);
                self.names.insert(*name, *image);
                Answer::Done
            }
            O::RemoveSnapshot(name) => {
                let image = self.snapshots.remove(name);
                if image.is_some() && self.names.get(name) == image.as_ref() {
                    self.names.remove(name);
                }
                Answer::Was(image.is_some())
            }
            O::Reopen => Answer::Done,
        })
    }

    fn has_image(&self, image: u8) -> Result<(), &'static str> {
        if self.images.contains_key(&image) { Ok(()) } else { Err("image missing") }
    }

    fn has_other(&self, sandbox: u8, name: Option<u8>) -> bool {
        let named = |(id, (_, of)): (&u8, &(u8, Option<u8>))| *id != sandbox && *of == name;
        name.is_some() && self.sandboxes.iter().any(named)
    }

    fn name(&mut self, name: u8, image: u8) -> Result<(), &'static str> {
        if self.snapshots.get(&name).is_some_and(|of| *of != image) {
            return Err("a snapshot");
        }
        self.has_image(image)?;
        self.names.insert(name, image);
        Ok(())
    }

    fn put_sandbox(
        &mut self,
        sandbox: u8,
        image: u8,
        name: Option<u8>,
        slot: Option<u8>,
    ) -> Result<(), &'static str> {
        self.has_image(image)?;
        self.sandboxes.insert(sandbox, (image, name));
        self.slots.retain(|number, of| *of != Some(sandbox) || slot == Some(*number));
        if let Some(slot) = slot {
            if self.slots.get(&slot).copied().flatten().is_some_and(|of| of != sandbox) {
                return Err("slot in use");
            }
            self.slots.insert(slot, Some(sandbox));
        }
        Ok(())
    }
}
