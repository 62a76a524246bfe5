//! Archives that are legal, in every dialect, and archives that are slightly broken.

use crate::archive::{Archive, Header, Magic, pax_records, seal};
use crate::random::Random;
use crate::repair::tar_headers;

/// An archive that every tool should read the same way.
pub(super) fn legal(random: &mut Random) -> Vec<u8> {
    let dialect = *random.pick(&[Magic::Ustar, Magic::Ustar, Magic::Gnu, Magic::V7]);
    let mut state = State {
        archive: Archive::new(),
        dialect,
        taken: vec![],
        files: vec![],
        below: vec![],
        fresh: 0,
    };
    if random.one_in(3) {
        state.dir(random, b"./".to_vec());
    }
    for _ in 0..=random.below(9) {
        state.entry(random);
    }
    let bytes = state.archive.unfinished();
    match random.below(8) {
        // Without an end marker, and padded to a record.
        0 if !bytes.is_empty() => bytes,
        1 => {
            let len = (bytes.len() + 1024).next_multiple_of(10_240);
            Archive::new().raw(&bytes).raw(&vec![0; len - bytes.len()]).unfinished()
        }
        _ => Archive::new().raw(&bytes).end(),
    }
}

struct State {
    archive: Archive,
    dialect: Magic,
    /// Names that are taken, and whether they are directories.
    taken: Vec<(Vec<u8>, bool)>,
    files: Vec<Vec<u8>>,
    /// Symlinks that lead to directories, and directories that were made through them.
    below: Vec<Vec<u8>>,
    /// Numbers of names that nothing else has.
    fresh: usize,
}

impl State {
    fn entry(&mut self, random: &mut Random) {
        if random.one_in(8) {
            return self.way(random);
        }
        let through = !self.below.is_empty() && random.one_in(3);
        let name = if through { self.below(random) } else { self.name(random) };
        let old = self.taken.iter().find(|(taken, _)| *taken == name).map(|(_, dir)| *dir);
        let kind = match old {
            // What replaces a directory is a case of its own.
            Some(true) => 0,
            // A symlink may lead to it.
            Some(false) if !self.below.is_empty() && self.is_directory(&name) => 0,
            _ => random.below(10),
        };
        match kind {
            0 | 1 => self.dir(random, name),
            2 => {
                let targets: [&[u8]; 5] = [b"a", b"b/c", b"x y", b"a/b/c/d", &[b'l'; 130]];
                let target = *random.pick(&targets);
                if target.len() > 100 && self.dialect == Magic::V7 {
                    return;
                }
                let header = self.header(random, b'2', &name).link(target);
                let mut records: Vec<(&[u8], Vec<u8>)> = Vec::new();
                if target.len() > 100 {
                    if self.dialect == Magic::Gnu {
                        let archive = std::mem::take(&mut self.archive);
                        self.archive = archive.gnu_long(b'K', target);
                    } else {
                        records.push((b"linkpath", target.to_vec()));
                    }
                }
                self.put(random, header, &name, b"", &records);
                self.files.retain(|file| *file != name);
                self.taken.push((name, false));
            }
            3 if !self.files.is_empty() => {
                let target = random.pick(&self.files).clone();
                if target == name || target.len() > 100 {
                    return;
                }
                let header = self.header(random, b'1', &name).link(&target);
                self.put(random, header, &name, b"", &[]);
                self.taken.push((name, false));
            }
            4 if self.dialect != Magic::V7 => {
                let typeflag = *random.pick(b"346");
                let header = self.header(random, typeflag, &name);
                let header = header.device(1 + random.below(9) as u32, random.below(300) as u32);
                self.put(random, header, &name, b"", &[]);
                self.files.retain(|file| *file != name);
                self.taken.push((name, false));
            }
            _ => {
                let size = *random.pick(&[0, 1, 17, 511, 512, 513, 1024, 2000]);
                let data: Vec<u8> = (0..size).map(|_| random.number() as u8).collect();
                let typeflag =
                    if self.dialect == Magic::V7 { 0 } else { *random.pick(b"000\x007") };
                let header = self.header(random, typeflag, &name);
                let mut records: Vec<(&[u8], Vec<u8>)> = Vec::new();
                if self.dialect == Magic::Ustar {
                    if random.one_in(5) {
                        records.push((b"SCHILY.xattr.user.k", vec![b'v'; random.below(40)]));
                    }
                    if random.one_in(5) {
                        let mtime =
                            format!("{}.{:03}", random.below(2_000_000_000), random.below(999));
                        records.push((b"mtime", mtime.into()));
                    }
                    if random.one_in(5) {
                        records.push((b"uid", (3_000_000 + random.below(1000)).to_string().into()));
                        records.push((b"gid", random.below(70_000).to_string().into()));
                    }
                    if random.one_in(6) {
                        records.push((b"size", size.to_string().into()));
                    }
                    if random.one_in(8) {
                        records.push((b"comment", b"of no effect".to_vec()));
                    }
                }
                self.put(random, header, &name, &data, &records);
                self.files.push(name.clone());
                self.taken.push((name, false));
            }
        }
    }

    /// Whether the last entry of that name is a directory.
    fn is_directory(&self, name: &[u8]) -> bool {
        self.taken.iter().rev().find(|(taken, _)| taken == name).is_some_and(|(_, dir)| *dir)
    }

    /// A name below a symlink, which nothing else has.
    fn below(&mut self, random: &mut Random) -> Vec<u8> {
        self.fresh += 1;
        let base = random.pick(&self.below).clone();
        [base, format!("/v{}", self.fresh).into_bytes()].concat()
    }

    /// A symlink for entries to go through.
    fn way(&mut self, random: &mut Random) {
        self.fresh += 1;
        let name = if self.below.is_empty() || random.one_in(2) {
            format!("way{}", self.fresh).into_bytes()
        } else {
            self.below(random)
        };
        let directories = self.taken.iter().filter(|(name, dir)| *dir && self.is_directory(name));
        let directories = directories.map(|(name, _)| name);
        let described: Vec<Vec<u8>> = directories.chain(&self.below).cloned().collect();
        let target = match random.below(8) {
            0 => format!("nowhere{}/deeper", self.fresh).into_bytes(),
            1 => (*random.pick::<&[u8]>(&[b".", b"./", b"/", b"..", b"/../..", b"../../x/.."]))
                .to_vec(),
            2 | 3 if !described.is_empty() => [b"/", &random.pick(&described)[..]].concat(),
            _ if !described.is_empty() && !name.contains(&b'/') => random.pick(&described).clone(),
            _ => b".".to_vec(),
        };
        if target.len() > 100 {
            return;
        }
        let header = self.header(random, b'2', &name).link(&target);
        self.put(random, header, &name, b"", &[]);
        self.taken.push((name.clone(), false));
        self.below.push(name);
    }

    fn dir(&mut self, random: &mut Random, name: Vec<u8>) {
        let slash: &[u8] = if name.ends_with(b"/") || random.one_in(4) && self.dialect != Magic::V7
        {
            b""
        } else {
            b"/"
        };
        let spelled = [&name[..], slash].concat();
        // The seventh edition has no type for directories; a slash marks them.
        let typeflag = if self.dialect == Magic::V7 { 0 } else { b'5' };
        if typeflag == 0 && !spelled.ends_with(b"/") {
            return;
        }
        let header = self.header(random, typeflag, &spelled);
        self.put(random, header, &spelled, b"", &[]);
        self.files.retain(|file| *file != name);
        if self.below.iter().any(|way| name.starts_with(&[&way[..], b"/"].concat())) {
            self.below.push(name.clone());
        }
        self.taken.push((name, true));
    }

    /// A name whose parents are directories or not there.
    fn name(&self, random: &mut Random) -> Vec<u8> {
        const PARTS: [&[u8]; 9] =
            [b"a", b"b", b"c", b"d", b"x y", b"\xc3\xa4", b"..a", b"-r", &[b'n'; 90]];
        let mut name = Vec::new();
        for _ in 0..=random.below(3) {
            if !name.is_empty() {
                let blocked = self.taken.iter().rev().any(|(taken, dir)| *taken == name && !*dir);
                if blocked {
                    break;
                }
                name.push(b'/');
            }
            name.extend_from_slice(random.pick::<&[u8]>(&PARTS));
            if self.dialect == Magic::V7 && name.len() > 90 {
                name.truncate(20);
                break;
            }
        }
        let below = [&name[..], b"/"].concat();
        // Nothing may become a parent that has entries already, but a directory.
        if self.taken.iter().any(|(taken, _)| taken.starts_with(&below)) {
            return b"fresh".to_vec();
        }
        name
    }

    fn header(&self, random: &mut Random, typeflag: u8, name: &[u8]) -> Header {
        let mode = *random.pick(&[0o644, 0o755, 0o600, 0o4755, 0o2750, 0o1777, 0o700]);
        let header = Header::new(typeflag, name)
            .magic(self.dialect)
            .mode(mode)
            .owner(random.below(70_000) as u32, random.below(70_000) as u32)
            .mtime(random.below(2_000_000_000) as u32);
        if self.dialect == Magic::Gnu && random.one_in(6) {
            // Base 256.
            let uid = (3_000_000 + random.below(1000)) as u32;
            return header.bytes(108, &[0x80, 0, 0, 0]).bytes(112, &uid.to_be_bytes());
        }
        header
    }

    fn put(
        &mut self,
        random: &mut Random,
        header: Header,
        name: &[u8],
        data: &[u8],
        records: &[(&[u8], Vec<u8>)],
    ) {
        let mut archive = std::mem::take(&mut self.archive);
        let mut header = header;
        let mut records = records.to_vec();
        if name.len() > 100 {
            // The prefix field, where the name can be cut.
            let cut = (name.len() - 100..name.len().min(156)).find(|at| name[*at] == b'/');
            match (self.dialect, cut) {
                (Magic::Gnu, _) => archive = archive.gnu_long(b'L', name),
                (Magic::Ustar, Some(cut)) if random.one_in(2) && cut + 1 < name.len() => {
                    header = header
                        .bytes(0, &[0; 100])
                        .bytes(0, &name[cut + 1..])
                        .bytes(345, &name[..cut]);
                }
                _ => records.push((b"path", name.to_vec())),
            }
        }
        if !records.is_empty() {
            let data = pax_records(&records);
            archive = archive.entry(Header::new(b'x', "PaxHeaders/x"), &data);
        }
        self.archive = archive.entry(header, data);
    }
}

/// Breaks a legal archive a little; most of the time its checksums stay right.
pub(super) fn mutate(mut tar: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(2) {
        tar = mutate_once(tar, random);
    }
    tar
}

fn mutate_once(mut tar: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let headers = tar_headers(&tar);
    let Some(&at) = headers.get(random.below(headers.len().max(1))) else { return tar };
    match random.below(16) {
        0 => tar.truncate(random.below(tar.len())),
        1 => tar.truncate(random.below(tar.len()) / 512 * 512),
        2 => tar.extend_from_slice(&vec![b'j'; 1 + random.below(1500)]),
        3 => {
            let other = legal(random);
            tar.extend_from_slice(&other);
        }
        4 => {
            let other = legal(random);
            tar.splice(at..at, other);
        }
        5 => {
            tar.splice(at..at, vec![0; 512 * (1 + random.below(2))]);
        }
        6 => {
            let end = (at + 512).min(tar.len());
            tar.drain(at..end);
        }
        // The checksum itself.
        7 => tar[at + 148 + random.below(8)] = *random.pick(b"01234567 \0x"),
        8 => {
            tar[at + 156] = *random.pick(b"\x000123456789AxgLKSDMNVX");
            seal(&mut tar[at..at + 512]);
        }
        9 => {
            let sizes: [&[u8]; 12] = [
                b"00000000000\0",
                b"00000000001\0",
                b"00000001000\0",
                b"77777777777\0",
                b"        17 \0",
                b"17\0\0\0\0\0\0\0\0\0\0",
                b"000000000017",
                b"\x80\0\0\0\0\0\0\0\0\0\0\x11",
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                b"-0000000001\0",
                b"0000000009\0\0",
                b"\0\0\0\0\0\0\0\0\0\0\0\0",
            ];
            tar[at + 124..at + 136].copy_from_slice(random.pick::<&[u8]>(&sizes));
            seal(&mut tar[at..at + 512]);
        }
        10 => {
            let numbers: [&[u8]; 9] = [
                b"0000755\0",
                b"   755 \0",
                b"755\0\0\0\0\0",
                b"00000755",
                b"\0\0\0\0\0\0\0\0",
                b"\x80\0\0\0\0\0\x03\xe8",
                b"\xff\xff\xff\xff\xff\xff\xff\xfe",
                b"0000899\0",
                b"12 34\0\0\0",
            ];
            let field = at + *random.pick(&[100, 108, 116]);
            tar[field..field + 8].copy_from_slice(random.pick::<&[u8]>(&numbers));
            seal(&mut tar[at..at + 512]);
        }
        11 => {
            let magics: [&[u8]; 5] =
                [b"ustar\x0000", b"ustar  \0", b"ustar\0\0\0", b"\0\0\0\0\0\0\0\0", b"ustar\x0011"];
            tar[at + 257..at + 265].copy_from_slice(random.pick::<&[u8]>(&magics));
            seal(&mut tar[at..at + 512]);
        }
        12 => {
            let names: [&[u8]; 10] =
                [b"/abs", b"../x", b"a/../b", b"a//b", b"./", b".", b"a/b/", b"", b"a", b"a/b"];
            let field = at + *random.pick(&[0, 0, 157]);
            tar[field..field + 100].fill(0);
            let name: &[u8] = random.pick::<&[u8]>(&names);
            tar[field..field + name.len()].copy_from_slice(name);
            seal(&mut tar[at..at + 512]);
        }
        13 => {
            let records: [(&str, &str); 22] = [
                ("path", "pax/path"),
                ("path", "../x"),
                ("path", ""),
                ("linkpath", "a"),
                ("size", "0"),
                ("size", "5"),
                ("size", "99999"),
                ("size", "x"),
                ("size", ""),
                ("uid", "-1"),
                ("uid", "4294967296"),
                ("gid", "7"),
                ("mtime", "1.25"),
                ("mtime", "-1.25"),
                ("mtime", "x"),
                ("mtime", ""),
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.size", "9"),
                ("SCHILY.xattr.user.z", "1\n2"),
                ("VENDOR.x", "1"),
                ("hdrcharset", "BINARY"),
                ("atime", "1"),
            ];
            let mut data = pax_records(&[*random.pick(&records)]);
            if random.one_in(4) {
                data.extend(pax_records(&[*random.pick(&records)]));
            }
            if random.one_in(8) {
                let byte = random.below(data.len());
                data[byte] = *random.pick(b"09 =\n\0x");
            }
            let typeflag = if random.one_in(5) { b'g' } else { b'x' };
            let header =
                Archive::new().entry(Header::new(typeflag, "PaxHeaders/m"), &data).unfinished();
            tar.splice(at..at, header);
        }
        14 => {
            let name: &[u8] =
                random.pick::<&[u8]>(&[&b"long/name"[..], b"../long", b"", b"a", &[b'q'; 200]]);
            let long = Archive::new().gnu_long(*random.pick(b"LK"), name).unfinished();
            tar.splice(at..at, long);
        }
        _ => {
            let field = at + random.below(512);
            tar[field] = random.number() as u8;
            if !random.one_in(4) {
                seal(&mut tar[at..at + 512]);
            }
        }
    }
    tar
}
