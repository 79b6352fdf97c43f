use super::*;

fn written(form: &Form) -> String {
    let mut out = Vec::new();
    form.write(&mut Writer::new(&mut out));
    String::from_utf8(out).unwrap()
}

fn parse(xml: &str) -> Result<Form, Error> {
    Form::parse(&Element::parse(xml.as_bytes()).unwrap())
}

#[test]
fn survives_the_wire() {
    let form = Form::new(FormType::Form, "urn:example")
        .title("A & B")
        .instruct("Fill it in.")
        .field(Field::new("with").type_(FieldType::JidSingle).label("Who").value("a@b"))
        .field(Field::new("all").type_(FieldType::Boolean).required())
        .field(Field::new("pick").type_(FieldType::ListSingle).option("One", "1").option("Two", "2"));
    assert_eq!(parse(&written(&form)), Ok(form.clone()));
    assert_eq!(form.form_type(), Some("urn:example"));
}

#[test]
fn is_written_as_xep_0004_shows() {
    let form = Form::new(FormType::Result, "urn:x").field(Field::new("a").value("<1>").value("2"));
    assert_eq!(
        written(&form),
        "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>urn:x</value></field>\
             <field var='a'><value>&lt;1&gt;</value><value>2</value></field></x>"
    );
}

#[test]
fn reads_submissions() {
    let form = parse(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>\
             <field var='with' type='odd'><value>a@b</value></field><field var='flip'><value>true</value></field>\
             <field var='none'/><field type='fixed'><value>hi</value></field><y xmlns='urn:other'/></x>",
        )
        .unwrap();
    assert_eq!((form.type_, form.form_type()), (FormType::Submit, Some("urn:xmpp:mam:2")));
    assert_eq!(form.get("with").unwrap().type_, Some(FieldType::TextSingle));
    assert_eq!((form.value("with"), form.value("none"), form.value("absent")), (Some("a@b"), None, None));
    assert_eq!(form.get("flip").unwrap().boolean(), Ok(true));
    assert_eq!(form.get("none").unwrap().boolean(), Ok(false));
    assert_eq!(form.get("with").unwrap().boolean(), Err(Error::Value));
}

#[test]
fn refuses_nonsense() {
    let with = |inner: &str| parse(&format!("<x xmlns='jabber:x:data' type='submit'>{inner}</x>"));
    assert_eq!(parse("<x xmlns='jabber:x:data'/>"), Err(Error::Type));
    assert_eq!(parse("<x xmlns='jabber:x:data' type='error'/>"), Err(Error::Type));
    assert_eq!(with("<field/>"), Err(Error::Var));
    assert_eq!(with("<field var='a'/><field var='a'/>"), Err(Error::Var));
    let fields: String = (0..129).map(|n| format!("<field var='{n}'/>")).collect();
    assert_eq!(with(&fields), Err(Error::TooMany));
    let values = "<value/>".repeat(513);
    assert_eq!(
        with(&format!("<field var='a'>{values}</field><field var='b'>{values}</field>")),
        Err(Error::TooMany)
    );
    for (error, condition) in [
        (Error::Var, Condition::BadRequest),
        (Error::Value, Condition::NotAcceptable),
        (Error::TooMany, Condition::PolicyViolation),
    ] {
        assert_eq!(StanzaError::from(error).condition, condition);
    }
}
