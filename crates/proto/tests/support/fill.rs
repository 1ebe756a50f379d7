//! Messages filled with values that are not defaults, from descriptors alone.

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// Message fields below this depth stay empty: nothing recurses deeper on purpose.
const MAX_DEPTH: usize = 4;

/// One instance with everything set, then one per further oneof variant and enum value.
pub(crate) fn samples(descriptor: &MessageDescriptor) -> Vec<DynamicMessage> {
    let full = filled(descriptor, 0);
    let mut out = vec![full.clone(), DynamicMessage::new(descriptor.clone())];
    for field in descriptor.fields() {
        if field.containing_oneof().is_some() {
            let mut message = full.clone();
            message.set_field(&field, value(&field, 0));
            out.push(message);
        }
        if let (Kind::Enum(values), false) = (field.kind(), field.is_map()) {
            for number in numbers(&values) {
                let mut message = full.clone();
                let value = Value::EnumNumber(number);
                let value = if field.is_list() { Value::List(vec![value]) } else { value };
                message.set_field(&field, value);
                out.push(message);
            }
        }
    }
    out
}

fn filled(descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        message.set_field(&field, value(&field, depth));
    }
    message
}

fn value(field: &FieldDescriptor, depth: usize) -> Value {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let key = match entry.map_entry_key_field().kind() {
            Kind::String => MapKey::String("key".into()),
            Kind::Uint32 => MapKey::U32(7),
            Kind::Int32 => MapKey::I32(-7),
            other => panic!("{}: map key {other:?}", field.full_name()),
        };
        let item = scalar(&entry.map_entry_value_field(), 0, depth);
        return Value::Map([(key, item)].into());
    }
    if field.is_list() {
        return Value::List((0..2).map(|index| scalar(field, index, depth)).collect());
    }
    scalar(field, 0, depth)
}

/// Values tell types apart: negative where the type allows it, beyond 32 and 53 bits where it can.
fn scalar(field: &FieldDescriptor, index: i32, depth: usize) -> Value {
    let salt = field.number() as i32 + index;
    match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String(format!("text-{salt}")),
        Kind::Bytes => Value::Bytes(vec![0xff, 0x00, salt as u8].into()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(-salt),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 if is_timestamp_part(field) => {
            Value::I64(1_700_000_000 + i64::from(salt))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(i64::MIN + i64::from(salt)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(u32::MAX - salt as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(u64::MAX - salt as u64),
        Kind::Float => Value::F32(0.5 + salt as f32),
        Kind::Double => Value::F64(0.25 + f64::from(salt)),
        Kind::Enum(values) => {
            let number = numbers(&values).into_iter().find(|number| *number != 0).unwrap_or(0);
            Value::EnumNumber(number)
        }
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
            let mut timestamp = DynamicMessage::new(message);
            timestamp.set_field_by_name("seconds", Value::I64(1_700_000_000 + i64::from(salt)));
            timestamp.set_field_by_name("nanos", Value::I32(120_000_000));
            Value::Message(timestamp)
        }
        Kind::Message(message) if depth >= MAX_DEPTH => {
            Value::Message(DynamicMessage::new(message))
        }
        Kind::Message(message) => Value::Message(filled(&message, depth + 1)),
    }
}

fn is_timestamp_part(field: &FieldDescriptor) -> bool {
    field.parent_message().full_name() == "google.protobuf.Timestamp"
}

fn numbers(values: &EnumDescriptor) -> Vec<i32> {
    values.values().map(|value| value.number()).collect()
}
