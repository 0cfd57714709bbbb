//! Law 1 as a property test: one process in nested scopes, making one call after the other, gets
//! the same answers as from a plain map. Concurrency is tested in `model`.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use onetrip::{ErrorKind, Ttl};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::{Bed, Face, Outcome};

on_every_store![scopes_never_change_results];

const KEYS: u8 = 5;

/// One step of a program. Few keys, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    GetMany(Vec<u8>),
    Contains(u8),
    GetOrInsert(u8, Value, Ttl),
    Cached(u8, Value, Ttl),
    Refresh(u8, Value, Ttl),
    Set(u8, Value, Ttl),
    SetMany(Vec<(u8, Value)>, Ttl),
    Add(u8, Value, Ttl),
    Incr(u8, i64),
    Touch(Vec<u8>, Ttl),
    Delete(Vec<u8>),
    Clear,
    /// Milliseconds of scope time; entries live far longer.
    Wait(u64),
    Preload(Vec<u8>, Vec<Step>),
    Hold(Vec<Step>),
    Batch(Vec<Step>),
}

fn key() -> impl Strategy<Value = u8> {
    0..KEYS
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(key(), 0..5)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => (-3_i64..3).prop_map(|number| json!(number)),
        1 => Just(json!(i64::MAX)),
        1 => Just(json!(i64::MIN)),
        1 => Just(Value::Null),
        1 => "[0-9a-c]{0,3}".prop_map(|text| json!(text)),
        1 => Just(json!([1, "x", {"y": null}])),
    ]
}

fn timeout() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        3 => Just(Ttl::Never),
        2 => Just(Ttl::After(Duration::from_secs(24 * 60 * 60))),
        1 => Just(Ttl::After(Duration::ZERO)),
    ]
}

fn program() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => key().prop_map(Step::Get),
        2 => keys().prop_map(Step::GetMany),
        1 => key().prop_map(Step::Contains),
        2 => (key(), value(), timeout()).prop_map(|(key, value, timeout)| Step::GetOrInsert(key, value, timeout)),
        2 => (key(), value(), timeout()).prop_map(|(key, value, timeout)| Step::Cached(key, value, timeout)),
        1 => (key(), value(), timeout()).prop_map(|(key, value, timeout)| Step::Refresh(key, value, timeout)),
        4 => (key(), value(), timeout()).prop_map(|(key, value, timeout)| Step::Set(key, value, timeout)),
        1 => (prop::collection::vec((key(), value()), 0..4), timeout())
            .prop_map(|(values, timeout)| Step::SetMany(values, timeout)),
        2 => (key(), value(), timeout()).prop_map(|(key, value, timeout)| Step::Add(key, value, timeout)),
        3 => (key(), prop_oneof![-2_i64..3, Just(i64::MAX), Just(i64::MIN)])
            .prop_map(|(key, delta)| Step::Incr(key, delta)),
        1 => (keys(), timeout()).prop_map(|(keys, timeout)| Step::Touch(keys, timeout)),
        2 => keys().prop_map(Step::Delete),
        1 => Just(Step::Clear),
        2 => (1_u64..12_000).prop_map(Step::Wait),
    ];
    let step = step.prop_recursive(4, 60, 10, |inner| {
        let steps = || prop::collection::vec(inner.clone(), 0..10);
        prop_oneof![
            3 => (keys(), steps()).prop_map(|(keys, steps)| Step::Preload(keys, steps)),
            1 => steps().prop_map(Step::Hold),
            1 => steps().prop_map(Step::Batch),
        ]
    });
    prop::collection::vec(step, 1..12)
}

/// A cache without scopes, trips or a store.
#[derive(Debug, Default)]
struct Model(HashMap<u8, Value>);

impl Model {
    fn set(&mut self, key: u8, value: Value, timeout: Ttl) {
        if timeout == Ttl::After(Duration::ZERO) {
            self.0.remove(&key);
        } else {
            self.0.insert(key, value);
        }
    }

    fn get(&self, key: u8) -> Option<Value> {
        self.0.get(&key).cloned()
    }

    fn incr(&mut self, key: u8, delta: i64) -> Result<Option<i64>, ErrorKind> {
        let Some(value) = self.0.get_mut(&key) else {
            return Ok(None);
        };
        let number = value.as_i64().and_then(|number| number.checked_add(delta));
        let number = number.ok_or(ErrorKind::NotANumber)?;
        *value = json!(number);
        Ok(Some(number))
    }

    fn delete(&mut self, keys: &[u8]) -> usize {
        keys.iter()
            .filter(|key| self.0.remove(key).is_some())
            .count()
    }

    fn touch(&mut self, keys: &[u8], timeout: Ttl) -> usize {
        if timeout == Ttl::After(Duration::ZERO) {
            return self.delete(keys);
        }
        keys.iter().filter(|key| self.0.contains_key(key)).count()
    }
}

fn name(key: u8) -> String {
    format!("key:{key}")
}

fn names(keys: &[u8]) -> Vec<String> {
    keys.iter().copied().map(name).collect()
}

fn all() -> Vec<String> {
    (0..KEYS).map(name).collect()
}

type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Runs steps on the cache and on the model.
fn run<'a>(bed: &'a Bed, cache: &'a Face, model: &'a mut Model, steps: &'a [Step]) -> Running<'a> {
    Box::pin(async move {
        for step in steps {
            match step {
                Step::Preload(keys, steps) => {
                    cache
                        .preload(names(keys), run(bed, cache, model, steps))
                        .await?;
                }
                Step::Hold(steps) => {
                    let hold = Duration::from_secs(60);
                    cache
                        .scope_holding(hold, run(bed, cache, model, steps))
                        .await?;
                }
                Step::Batch(steps) => cache.batch(run(bed, cache, model, steps)).await?,
                Step::Wait(millis) => bed.clock().advance(Duration::from_millis(*millis)),
                step => compare(bed, cache, model, step).await?,
            }
        }
        Ok(())
    })
}

async fn compare(bed: &Bed, cache: &Face, model: &mut Model, step: &Step) -> Outcome {
    match step.clone() {
        Step::Get(key) => assert_eq!(cache.get(name(key)).await?, model.get(key)),
        Step::GetMany(keys) => {
            let expected: Vec<_> = keys.iter().map(|key| model.get(*key)).collect();
            assert_eq!(cache.get_many(&names(&keys)).await?, expected);
        }
        Step::Contains(key) => {
            assert_eq!(cache.contains(name(key)).await?, model.0.contains_key(&key));
        }
        Step::GetOrInsert(key, value, timeout) => {
            let expected = model.get(key).unwrap_or_else(|| {
                model.set(key, value.clone(), timeout);
                value.clone()
            });
            let made = cache.get_or_insert_with(name(key), timeout, || value);
            assert_eq!(made.await?, expected);
        }
        Step::Cached(key, value, timeout) => {
            let expected = model.get(key).unwrap_or_else(|| {
                model.set(key, value.clone(), timeout);
                value.clone()
            });
            let made = cache.cached(&name(key), timeout, || value).await?;
            assert_eq!(made, expected);
        }
        Step::Refresh(key, value, timeout) => {
            let make = || value.clone();
            let made = cache.refresh(&name(key), timeout, make).await?;
            assert_eq!(made, value);
            model.set(key, value, timeout);
        }
        Step::Set(key, value, timeout) => {
            cache.set_for(name(key), &value, timeout).await?;
            model.set(key, value, timeout);
        }
        Step::SetMany(values, timeout) => {
            let named = values.iter().map(|(key, value)| (name(*key), value));
            cache.set_many(named, timeout).await?;
            for (key, value) in values {
                model.set(key, value, timeout);
            }
        }
        Step::Add(key, value, timeout) => {
            let free = !model.0.contains_key(&key);
            assert_eq!(cache.add(name(key), &value, timeout).await?, free);
            if free {
                model.set(key, value, timeout);
            }
        }
        Step::Incr(key, delta) => {
            let answer = cache.incr(name(key), delta).await;
            let answer = answer.map_err(|error| error.kind());
            assert_eq!(answer, model.incr(key, delta));
        }
        Step::Touch(keys, timeout) => {
            let touched = cache.touch_many(&names(&keys), timeout).await?;
            assert_eq!(touched, model.touch(&keys, timeout));
        }
        Step::Delete(keys) => {
            let deleted = cache.delete_many(&names(&keys)).await?;
            assert_eq!(deleted, model.delete(&keys));
        }
        Step::Clear if bed.clears() => {
            cache.clear().await?;
            model.0.clear();
        }
        // Stores that cannot clear delete the known keys instead.
        Step::Clear => {
            let deleted = cache.delete_many(&all()).await?;
            assert_eq!(deleted, std::mem::take(&mut model.0).len());
        }
        Step::Wait(_) | Step::Preload(..) | Step::Hold(_) | Step::Batch(_) => {
            unreachable!("run by `run`")
        }
    }
    Ok(())
}

/// Checks that the store holds exactly what the model holds.
async fn assert_left(bed: &Bed, cache: &Face, model: &Model) -> Outcome {
    let expected: Vec<_> = (0..KEYS).map(|key| model.get(key)).collect();
    let outside = bed.cache();
    assert_eq!(outside.get_many(&all()).await?, expected);
    let left = if bed.clears() {
        cache.clear().await?
    } else {
        cache.delete_many(&all()).await? as u64
    };
    assert_eq!(left, model.0.len() as u64);
    Ok(())
}

async fn scopes_never_change_results(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    let cases = if cache.cache().is_local() { 200 } else { 40 };
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let case = async |steps: &[Step]| {
        // A failed case may have left something.
        cache.delete_many(&all()).await?;
        let mut model = Model::default();
        run(&bed, cache, &mut model, steps).await?;
        assert_left(&bed, cache, &model).await
    };
    // Proptest calls its cases, which a task cannot await, so they run on another thread.
    let outcome = std::thread::scope(|threads| {
        let all = threads.spawn(|| {
            let driver = cache.driver();
            TestRunner::new(config).run(&program(), |steps| {
                let done = driver.run(case(&steps));
                done.map_err(|error| TestCaseError::fail(error.to_string()))
            })
        });
        all.join().unwrap()
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
    Ok(())
}
