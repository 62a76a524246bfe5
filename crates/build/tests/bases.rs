//! Where bases come from, and what they are pinned to.

#![expect(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "build/lab.rs"]
#[expect(dead_code, reason = "shared with the other tests of builds")]
mod lab;

use std::fs;
use std::path::Path;

use kiln_build::CatalogSource;
use kiln_testkit::{Compression, ImageBuilder, Registry, TestImage, gzip, zstd};
use kiln_types::{Base, ImageName};
use lab::{Lab, busybox, cached, infos, output, privileged, run};

fn image(marker: &str) -> TestImage {
    let tree = busybox().file("etc/marker", format!("{marker}\n"));
    ImageBuilder::new().layer(&tree, Compression::Gzip).build()
}

fn registry_source(registry: &Registry, tag: &str) -> CatalogSource {
    CatalogSource::Registry { reference: format!("{}/debian:{tag}", registry.host()) }
}

#[test]
fn tarballs_and_directories_are_known_by_content() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let write = |name: &str, bytes: &[u8]| {
        let path = lab.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        Base::Rootfs(path.display().to_string())
    };
    let tree = || busybox().file("etc/marker", "one\n");
    let steps = || vec![run("cat /etc/marker")];
    lab.block_on(async {
        // The same tree, packed in three ways, is one base: the second and third run nothing.
        let mut images = Vec::new();
        for (name, bytes) in
            [("a.tar", tree().tar()), ("b.tar.gz", gzip(&tree().tar())), ("c", zstd(&tree().tar()))]
        {
            let (image, _, events) = lab.image(lab.plan_on(write(name, &bytes), steps())).await;
            assert_eq!(cached(&events), [!images.is_empty()], "{name}");
            assert!(infos(&events).iter().any(|line| line.contains("reading the tarball")));
            images.push(image.digest);
        }
        assert!(images.iter().all(|image| *image == images[0]));

        // Unchanged, it is not read again; changed under the same path, it is another base.
        let same = Base::Rootfs(lab.dir.path().join("a.tar").display().to_string());
        let (_, _, events) = lab.image(lab.plan_on(same.clone(), steps())).await;
        assert!(infos(&events).iter().any(|line| line.contains("unchanged")), "{events:#?}");
        let other = busybox().file("etc/marker", "two\n").tar();
        let (_, _, events) = lab.image(lab.plan_on(write("a.tar", &other), steps())).await;
        assert_eq!((cached(&events), output(&events).as_str()), (vec![false], "two\n"));

        // A directory is read each time, and known by what is in it.
        let directory = lab.dir.path().join("root");
        fs::create_dir_all(directory.join("bin")).unwrap();
        fs::create_dir_all(directory.join("etc")).unwrap();
        let program = [Path::new("/bin/busybox"), Path::new("/usr/bin/busybox")];
        let program = program.into_iter().find(|path| path.exists()).unwrap();
        fs::copy(program, directory.join("bin/sh")).unwrap();
        fs::write(directory.join("etc/marker"), "three\n").unwrap();
        let base = Base::Rootfs(directory.display().to_string());
        let steps = || vec![run("read line < /etc/marker; echo \"$line\"")];
        for (hit, marker) in [(false, "three"), (true, "three"), (false, "four")] {
            if marker == "four" {
                fs::write(directory.join("etc/marker"), "four\n").unwrap();
            }
            let (_, _, events) = lab.image(lab.plan_on(base.clone(), steps())).await;
            assert_eq!(cached(&events), [hit], "{marker}");
            assert_eq!(output(&events), if hit { String::new() } else { format!("{marker}\n") });
        }
    });
}

#[test]
fn an_image_of_the_store_is_a_base() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.block_on(async {
        let mut plan = lab.plan(vec![run("echo a > /a")]);
        plan.name = Some("first:v1".parse().unwrap());
        let (first, ..) = lab.image(plan).await;
        for text in ["first:v1".to_owned(), first.digest.to_string(), first.digest.short()] {
            let (second, ..) =
                lab.image(lab.plan_on(Base::Image(text), vec![run("echo b > /b")])).await;
            assert_eq!(second.layers[..2], first.layers[..]);
            assert_eq!(lab.run(&second, "cat /a /b").await, "a\nb\n");
        }
    });
}

#[test]
fn a_reference_is_pinned_until_it_is_pulled() {
    if !privileged() {
        return;
    }
    let (lab, registry) = Lab::with_registry(|_, _| ());
    let base = Base::Reference(format!("{}/team/base:1", registry.host()));
    let plan = |pull: bool| {
        let mut plan = lab.plan_on(base.clone(), vec![run("cat /etc/marker; echo $PATH")]);
        plan.pull = pull;
        plan
    };
    lab.block_on(async {
        registry.put("team/base", "1", &image("old"));
        let (first, _, events) = lab.image(plan(false)).await;
        // The image's own environment counts.
        assert_eq!(output(&events), "old\n/usr/bin:/bin\n");
        let name: ImageName = format!("{}/team/base:1", registry.host()).parse().unwrap();
        assert!(lab.metadata.resolve_name(&name).await.unwrap().is_some());

        registry.put("team/base", "1", &image("new"));
        let (second, record, _) = lab.image(plan(false)).await;
        assert_eq!((second.digest, record.steps_cached), (first.digest, 1));
        let (third, _, events) = lab.image(plan(true)).await;
        assert_eq!(output(&events), "new\n/usr/bin:/bin\n");
        let (fourth, ..) = lab.image(plan(false)).await;
        assert_eq!(third.digest, fourth.digest);

        // A registry that is gone is an error where it is needed, and only there.
        drop(registry);
        lab.image(plan(false)).await;
        let (record, _) = lab.build(plan(true)).await;
        assert!(record.failure.unwrap().message.contains("team/base"));
    });
}

#[test]
fn the_first_source_of_a_catalog_name_that_answers_is_taken_and_pinned() {
    if !privileged() {
        return;
    }
    let (lab, registry) = Lab::with_registry(|registry, config| {
        let sources = vec![registry_source(registry, "missing"), registry_source(registry, "12")];
        config.catalog.insert("debian-12".to_owned(), sources);
    });
    let plan = |pull: bool| {
        let base = Base::Catalog("debian-12".to_owned());
        let mut plan = lab.plan_on(base, vec![run("cat /etc/marker")]);
        plan.pull = pull;
        plan
    };
    lab.block_on(async {
        registry.put("debian", "12", &image("twelve"));
        let (_, _, events) = lab.image(plan(false)).await;
        assert_eq!(output(&events), "twelve\n");
        let lines = infos(&events);
        let said = |text: &str| lines.iter().any(|line| line.contains(text));
        assert!(said("not from registry image") && said("debian:missing"), "{lines:#?}");
        assert!(said("taken from registry image") && said("debian:12"), "{lines:#?}");
        let named = lab.store.resolve("debian-12").await.unwrap();
        let resolved = lab.builder.resolve_catalog("debian-12").await.unwrap().unwrap();
        assert_eq!(named.digest, resolved.digest);
        assert!(lab.builder.resolve_catalog("debian").await.unwrap().is_none());

        // A source that comes back goes first again only when asked for.
        registry.put("debian", "missing", &image("found"));
        let (_, record, events) = lab.image(plan(false)).await;
        assert_eq!(record.steps_cached, 1);
        assert!(infos(&events).iter().any(|line| line.contains("debian:12")), "{events:#?}");
        let (_, _, events) = lab.image(plan(true)).await;
        assert_eq!(output(&events), "found\n");
        assert_ne!(lab.store.resolve("debian-12").await.unwrap().digest, named.digest);

        drop(registry);
        let (record, _) = lab.build(plan(true)).await;
        let failure = record.failure.unwrap().message;
        assert!(failure.contains("debian:missing") && failure.contains("debian:12"), "{failure}");
        // The pin is still good.
        lab.image(plan(false)).await;
    });
}

#[test]
fn equal_bases_at_once_are_pulled_once() {
    if !privileged() {
        return;
    }
    let (lab, registry) = Lab::with_registry(|_, _| ());
    lab.block_on(async {
        let image = image("once");
        registry.put("base", "1", &image);
        let base = Base::Reference(format!("{}/base:1", registry.host()));
        let builds = (0..4).map(|number| {
            lab.image(lab.plan_on(base.clone(), vec![run(&format!("echo {number} > /number"))]))
        });
        futures_util::future::join_all(builds).await;
        assert_eq!(registry.blob_requests(&image.layers[0]), 1);
    });
}

/// A directory that is read already was maybe read before it was changed.
#[test]
fn a_directory_is_never_taken_as_it_was_before_the_call() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let directory = lab.dir.path().join("root");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("a"), "marker: old").unwrap();
    fs::write(directory.join("b"), vec![7; 32 << 20]).unwrap();
    let base = Base::Rootfs(directory.display().to_string());
    lab.block_on(async {
        let (say, begun) = tokio::sync::oneshot::channel();
        let say = std::sync::Mutex::new(Some(say));
        let told = |_: String| {
            if let Some(say) = say.lock().unwrap().take() {
                say.send(()).unwrap();
            }
        };
        let first = lab.builder.resolve_base(&base, false, &told);
        let second = async {
            begun.await.unwrap();
            fs::write(directory.join("a"), "marker: new").unwrap();
            lab.builder.resolve_base(&base, false, &|_| ()).await.unwrap()
        };
        let (_, second) = tokio::join!(first, second);
        let tar = fs::read(lab.store.blobs().path(&second.layers[0].0)).unwrap();
        assert!(tar.windows(11).any(|bytes| bytes == b"marker: new"));
    });
}

#[test]
fn a_tarball_that_is_written_to_is_no_base() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let path = lab.dir.path().join("growing.tar");
    // A pipe between the two would be no file: the reader is slowed down by the size instead.
    fs::write(&path, busybox().file("z", vec![7; 32 << 20]).tar()).unwrap();
    let base = Base::Rootfs(path.display().to_string());
    lab.block_on(async {
        let told = |_: String| {
            let path = path.clone();
            std::thread::spawn(move || {
                let file = fs::OpenOptions::new().append(true).open(path).unwrap();
                for _ in 0..200 {
                    std::io::Write::write_all(&mut &file, &[0; 1024]).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
        };
        let error = lab.builder.resolve_base(&base, false, &told).await.unwrap_err();
        let text = format!("{error}: {:?}", std::error::Error::source(&*error));
        assert!(text.contains("growing.tar") && text.contains("written to"), "{text}");
        assert!(lab.metadata.list_images(None, 10).await.unwrap().is_empty());
    });
}
