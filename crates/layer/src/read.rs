//! Archive → uncompressed tar, its digest and its tree, in one pass.

use std::fs::File;
use std::io::{self, Read, Write};

use kiln_types::DiffId;

use crate::error::{EntryProblem, LayerError};
use crate::inflate::{Inflated, inflate};
use crate::limits::Limits;
use crate::tar::{Member, Members, Step, padded};
use crate::tree::{Applier, LayerTree};

mod source;

use source::{FromStart, Seeking, Source, Streaming};

/// A layer that was read to its last byte.
#[derive(Debug)]
pub struct ReadLayer {
    /// SHA-256 of the uncompressed tar, every byte of it.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// What the layer says.
    pub tree: LayerTree,
}

/// Reads a layer archive (plain tar, gzip of any number of members, zstd of any number of frames, told
/// apart by their first bytes), writes the uncompressed tar to `tar_out` and parses it on the way.
///
/// The input is read to its end, past the end-of-archive marker. `tar_out` is flushed, not synced; after
/// an error its content is of no use.
///
/// # Errors
/// Every refusal names the entry; see `docs/formats/layer.md`.
pub fn read_layer(
    input: impl Read,
    tar_out: impl Write,
    limits: &Limits,
) -> Result<ReadLayer, LayerError> {
    read_stream(inflate(input)?, tar_out, limits)
}

/// The same, for a `tar_out` that hashes what it is given: `digest` asks it for the SHA-256 of all of it.
/// Hashing is half of the work of reading a layer, and is then not done twice.
///
/// # Errors
/// As [`read_layer`].
pub fn read_layer_hashed<W: Write>(
    input: impl Read,
    tar_out: W,
    digest: impl FnOnce(&W) -> DiffId,
    limits: &Limits,
) -> Result<ReadLayer, LayerError> {
    let mut source = Streaming::unhashed(inflate(input)?, tar_out, limits);
    let tree = read_members(&mut source, limits)?;
    let (tar_size, tar_out) =
        source.rest().map_err(|error| error.at_entry(b"(behind the last)"))?;
    not_empty(tar_size)?;
    Ok(ReadLayer { diff_id: digest(&tar_out), tar_size, tree })
}

/// Reads an uncompressed tar from its start, hashing every byte: like [`read_layer`] without the copy.
///
/// The file's own position is neither used nor moved.
pub fn read_tar_file(file: &File, limits: &Limits) -> Result<ReadLayer, LayerError> {
    read_stream(Inflated::plain(FromStart::new(file)), io::sink(), limits)
}

/// Parses an uncompressed tar whose digest is known, passing over file data. Returns its size too.
///
/// The file's own position is neither used nor moved.
pub fn read_tar_tree(file: &File, limits: &Limits) -> Result<(LayerTree, u64), LayerError> {
    let mut source = Seeking::new(file, limits)?;
    let tree = read_members(&mut source, limits)?;
    Ok((tree, source.len()))
}

fn read_stream(
    input: Inflated<'_>,
    tar_out: impl Write,
    limits: &Limits,
) -> Result<ReadLayer, LayerError> {
    let mut source = Streaming::new(input, tar_out, limits);
    let tree = read_members(&mut source, limits)?;
    let (diff_id, tar_size) =
        source.finish().map_err(|error| error.at_entry(b"(behind the last)"))?;
    not_empty(tar_size)?;
    Ok(ReadLayer { diff_id, tar_size, tree })
}

/// Compressed, nothing at all has some bytes; it is no tar all the same.
fn not_empty(tar_size: u64) -> Result<(), LayerError> {
    if tar_size == 0 { Err(LayerError::NotAnArchive("it is empty")) } else { Ok(()) }
}

fn read_members(source: &mut impl Source, limits: &Limits) -> Result<LayerTree, LayerError> {
    let mut members = Members::new(limits);
    let mut applier = Applier::new(limits);
    // The entry that was begun last, for errors that the source does not know how to name.
    let mut entry = b"(the first)".to_vec();
    while let Some((member, data)) =
        next_member(source, &mut members).map_err(|error| error.at_entry(&entry))?
    {
        entry.clone_from(&member.path);
        let start = member.offset;
        let whole = padded(member.size).expect("checked with the member");
        applier.apply(member, data)?;
        if source.skip(whole).map_err(|error| error.at_entry(&entry))? < whole {
            return Err(LayerError::entry(&entry, start, EntryProblem::Truncated));
        }
    }
    Ok(applier.finish())
}

/// Reads headers up to the next member; its data start at the position that is returned with it.
fn next_member(
    source: &mut impl Source,
    members: &mut Members,
) -> Result<Option<(Member, u64)>, LayerError> {
    let mut block = [0; 512];
    loop {
        let offset = source.position();
        match source.fill(&mut block)? {
            512 => {}
            // Writers that are not tar itself leave the end marker out.
            0 => {
                members.end(offset)?;
                return Ok(None);
            }
            _ => return Err(members.truncated(offset)),
        }
        match members.header(&block, offset)? {
            Step::Next => {}
            Step::End => return Ok(None),
            Step::Extension(len) => {
                let whole = padded(len).expect("the limit on extensions is far below") as usize;
                let mut data = vec![0; whole];
                if source.fill(&mut data)? < whole {
                    return Err(members.pending_error(EntryProblem::Truncated));
                }
                members.extension(&data, len as usize);
            }
            Step::Member(member) => return Ok(Some((*member, source.position()))),
        }
    }
}
