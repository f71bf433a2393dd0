//! Small value shapes of the file: a number or `"auto"`, one text or a list of texts, a scalar as text.
//!
//! Owns their reading. Must not know which key uses them.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use toml::Spanned;

/// A number, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// To be found out.
    Auto,
    /// Written.
    Fixed(u32),
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl Visitor<'_> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or \"auto\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                match text {
                    "auto" => Ok(Count::Auto),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
                let number = u32::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
                Ok(Count::Fixed(number))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

/// One text, or a list of texts.
#[derive(Clone, Debug)]
pub(super) struct OneOrMany(pub(super) Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                // The caller knows the place of the whole value and puts it in.
                Ok(OneOrMany(vec![Spanned::new(0..0, text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element::<Spanned<String>>()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

impl OneOrMany {
    /// The texts, each with its place.
    pub(super) fn list(value: &Spanned<Self>) -> Vec<Spanned<String>> {
        let one = |text: &Spanned<String>| text.span() == (0..0);
        let place = |text: &Spanned<String>| if one(text) { value.span() } else { text.span() };
        value.get_ref().0.iter().map(|text| Spanned::new(place(text), text.get_ref().clone())).collect()
    }
}

/// A text, number or boolean, taken as text (a Postgres setting).
#[derive(Clone, Debug)]
pub(super) struct Scalar(pub(super) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Scalar, E> {
                Ok(Scalar(if yes { "on" } else { "off" }.to_owned()))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// `true`, or a text: whose token it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SubjectModel {
    /// The user's own name.
    Own,
    /// Not by token.
    Nobody,
    /// This one.
    Named(String),
}

impl<'de> Deserialize<'de> for SubjectModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SubjectVisitor;
        impl Visitor<'_> for SubjectVisitor {
            type Value = SubjectModel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, or the text that the user claim must be")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SubjectModel, E> {
                Ok(SubjectModel::Named(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, yes: bool) -> Result<SubjectModel, E> {
                Ok(if yes { SubjectModel::Own } else { SubjectModel::Nobody })
            }
        }
        deserializer.deserialize_any(SubjectVisitor)
    }
}
