//! Steps of other users than the one that made the workspace: all may write,
//! git works for all of them, and none shuts out those who come after.

use super::{look_in, run, seen_by};
use crate::support::stage::{NOBODY_IMAGE, NONROOT_IMAGE, STEP_IMAGE, Stage};

/// Makes changes of every kind, commits them, and writes beside the clone.
const WORK: &str = r#"
name=$(id -u)
echo $name >>src/cart.txt
echo $name >>shared.txt
mkdir -p dir/of
echo $name >>dir/of/everyone.txt
mkdir dir/of/$name
git mv README.md README.old
git mv README.old README.md
git add --all
git -c user.name=$name -c user.email=$name@example.org commit --quiet --message $name
git gc --quiet
echo $name >>../beside.txt
echo $name >>$(mktemp ../new.XXXXXX)
git status --porcelain
"#;

/// A commit with so many objects that each directory of them gets some.
const COMMIT: &str = r#"
name=$(id -u)
mkdir $name
for number in $(seq 1500); do echo $name $number >$name/$number; done
git add --all
git -c user.name=$name -c user.email=$name@example.org commit --quiet --message $name
"#;

#[test]
fn steps_of_many_users_share_a_clone() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let users = [
        ("a", NONROOT_IMAGE, "1000"),
        ("b", NOBODY_IMAGE, "65534"),
        ("c", STEP_IMAGE, "0"),
    ];
    let spec = users.iter().fold(stage.job(), |spec, (key, image, _)| {
        spec.step(look_in(image, key, WORK))
    });
    let show = "git log --format=%s; cat shared.txt dir/of/everyone.txt ../beside.txt";
    let job = run(&stage, spec.step(look_in(NONROOT_IMAGE, "look", show)));
    for (key, _, _) in users {
        assert_eq!(seen_by(&job, key), [""; 0], "git has nothing to say");
    }
    let names = users.map(|(_, _, name)| name);
    let log = ["0", "65534", "1000", "A change"];
    assert_eq!(
        seen_by(&job, "look"),
        [&log[..], &names, &names, &names].concat()
    );
    executor.stop();
    stage.assert_clean();
}

#[test]
fn commits_of_root_leave_room_for_others() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let images = [STEP_IMAGE, NONROOT_IMAGE, NOBODY_IMAGE];
    let spec = images.iter().fold(stage.job(), |spec, image| {
        spec.step(look_in(image, image, COMMIT))
    });
    let job = run(
        &stage,
        spec.step(look_in(STEP_IMAGE, "look", "git log --format=%s")),
    );
    assert_eq!(seen_by(&job, "look"), ["65534", "1000", "0", "A change"]);
    executor.stop();
    stage.assert_clean();
}

/// Git before 2.38 does not heed the environment in this matter.
#[test]
fn git_needs_no_environment_for_its_trust() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let look = "env --unset=GIT_CONFIG_COUNT git status --short --branch";
    let job = run(
        &stage,
        stage.job().step(look_in(NONROOT_IMAGE, "look", look)),
    );
    assert_eq!(seen_by(&job, "look"), ["## HEAD (no branch)"]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_home_in_the_clone_stays_as_it_is() {
    let stage = Stage::new();
    let executor = stage.executor().start();
    let step = look_in(NONROOT_IMAGE, "look", "git status --short --branch");
    let job = run(
        &stage,
        stage.job().step(step.env("HOME", "/job/repository")),
    );
    assert_eq!(seen_by(&job, "look"), ["## HEAD (no branch)"]);
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_configured_user_makes_and_uses_the_workspace() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("KUBERNETES_RUN_AS_USER", "1234")
        .env("KUBERNETES_RUN_AS_GROUP", "2345")
        .env("KUBERNETES_FS_GROUP", "3456")
        .start();
    let look = "id -u; id -G; stat --format='%u %g' .git README.md; umask
        git status --short; touch /job/made-by-a-step";
    for directory in ["repository", ""] {
        let look = look_in(STEP_IMAGE, "look", look).dir(directory);
        let job = run(&stage, stage.job().directory(directory).step(look));
        let expected = ["1234", "2345 3456", "1234 3456", "1234 3456", "0022"];
        assert_eq!(seen_by(&job, "look")[..5], expected, "in {directory:?}");
    }
    executor.stop();
    stage.assert_clean();
}

#[test]
fn a_claim_is_open_to_every_user() {
    let stage = Stage::new();
    let executor = stage
        .executor()
        .env("KUBERNETES_JOB_VOLUME_TYPE", "pvc")
        .env("KUBERNETES_JOB_VOLUME_SIZE", "64Mi")
        .start();
    let look = look_in(NONROOT_IMAGE, "look", "echo mine >/job/mine; cat /job/mine");
    let job = run(&stage, stage.job().step(look));
    assert_eq!(seen_by(&job, "look"), ["mine"]);
    executor.stop();
    stage.assert_clean();
}
