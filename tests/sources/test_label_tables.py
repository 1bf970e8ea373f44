"""What a table beside images is taken for: its columns, its split, which of several, and what its labels mean."""

import pytest
from labelled_folders import labels, read, refusal, write

from dr import GRADES
from dr.sources.columns import Columns


def rows(header, *values) -> str:
    return "\n".join([header, *values]) + "\n"


ABCDE = [f"photos/{name}" for name in "abcde"]


@pytest.mark.parametrize(
    "column",
    ["Retinopathy grade", "DR_grade", "adjudicated_dr_grade", "patient_DR_Level", "Level", "dr_grade", "DR", "class",
     "label", "DR_level", "final_icdr", "drLevel", "Diabetic Retinopathy Grade", "grade", "DRGrade", "severity"],
)  # fmt: skip
def test_the_usual_names_of_a_column_of_grades_are_known(tmp_path, column):
    table = rows(f"name,age,{column},comment", *(f"{name},{60 + n},{n},x" for n, name in enumerate("abcde")))
    source = read(write(tmp_path, images=ABCDE, grading_csv=table))
    assert (labels(source), source.classes) == (dict(zip("abcde", range(5), strict=True)), GRADES)
    assert source.notes[0] == f"grading.csv: image 'name', label {column!r}; not used: 'age', 'comment'"


def test_columns_of_unknown_names_are_recognised_by_what_they_hold(tmp_path):
    table = rows("Auge,Alter,Befund", *(f"photos/{name}.png,{50 + n},{n % 5}" for n, name in enumerate("abcde")))
    source = read(write(tmp_path, images=ABCDE, befunde_csv=table))
    assert source.notes[0] == "befunde.csv: image 'Auge', label 'Befund'; not used: 'Alter'"
    table = rows("Auge,Befund", "a,No DR", "b,Mild NPDR", "c,PDR")
    assert labels(read(write(tmp_path / "words", images=ABCDE[:3], befunde_csv=table))) == {"a": 0, "b": 1, "c": 2}


def test_two_columns_that_could_be_the_label_are_refused_with_the_flag(tmp_path):
    table = rows("image,reader1,reader2", *(f"{name},{n},{(n + 1) % 5}" for n, name in enumerate("abcde")))
    root = write(tmp_path, images=ABCDE, labels_csv=table)
    message = "labels.csv: the columns 'reader1' and 'reader2' could each be the label; choose one, as --label_column"
    assert refusal(root).startswith(message)
    assert labels(read(root, columns=Columns(label="reader2")))["a"] == 1
    table = rows("image,diagnosis,level", *(f"{name},{n},{(n + 1) % 5}" for n, name in enumerate("abcde")))
    assert "'diagnosis' and 'level' could each be the label" in refusal(write(tmp_path, labels_csv=table))


def test_two_columns_that_name_the_images_differently_are_refused_with_the_flag(tmp_path):
    photos = [f"photos/{number}" for number in range(1, 9)]
    table = rows("row,photo,level", *(f"{n},{9 - n},{n % 5}" for n in range(1, 9)))
    root = write(tmp_path, images=photos, labels_csv=table)
    message = "labels.csv: the columns 'row' and 'photo' name different images; choose one, as --id_column 'row'"
    assert refusal(root) == message
    assert labels(read(root, columns=Columns(id="photo")))["8"] == 1
    table = rows("scan,photo,level", *(f"{n},photos/{n}.png,{n % 5}" for n in range(1, 9)))
    assert labels(read(write(tmp_path, labels_csv=table)))["8"] == 3


def test_a_column_that_counts_the_rows_gives_way_to_one_with_a_usual_name(tmp_path):
    photos = [f"photos/{number}" for number in range(1, 9)]
    table = rows(",image,level", *(f"{n},{10 - n},{n - 1}" for n in range(1, 6)))
    source = read(write(tmp_path, images=photos, labels_csv=table))
    assert source.notes[0] == "labels.csv: image 'image', label 'level'"
    assert labels(source)["8"] == 1


@pytest.mark.parametrize("folder", ["a", "./a", "a/", "/a", "a\\"])
def test_the_root_is_read_however_it_is_written(tmp_path, folder):
    table = rows("image,level", *(f"{name},{n % 5}" for n, name in enumerate("abcde")))
    both = [f"{part}/{name}" for part in ("a", "b") for name in "abcde"]
    root = write(tmp_path, images=both)
    for part in ("a", "b"):
        (root / part / "labels.csv").write_text(table)
    assert set(read(root, root=folder).table["member"]) == {f"a/{name}.png" for name in "abcde"}


def test_a_table_without_a_column_of_labels_is_refused_with_its_columns(tmp_path):
    table = rows("image,age,quality", *(f"{name},{60 + n},{n % 2}" for n, name in enumerate("abcde")))
    message = "labels.csv: no column looks like grades (image,age,quality); name it with --label_column"
    assert refusal(write(tmp_path, images=ABCDE, labels_csv=table)) == message


def test_the_eye_that_an_image_shows_decides_between_two_columns_of_grades(tmp_path):
    names = ["1_l1", "1_r1", "2_left", "2_right"]
    table = rows("image_id,left_eye_DR_Level,right_eye_DR_Level", "1_l1,0,3", "1_r1,0,3", "2_left,1,2", "2_right,1,2")
    root = write(tmp_path, images=names, labels_csv=table)
    assert labels(read(root)) == {"1_l1": 0, "1_r1": 3, "2_left": 1, "2_right": 2}
    write(tmp_path, images=["x"], labels_csv=table + "x,1,2\n")
    assert "row 6: left_eye_DR_Level and right_eye_DR_Level differ and x shows no eye" in refusal(root)


def test_a_column_of_retinopathy_without_grades_is_two_classes(tmp_path):
    table = rows("ID,Disease_Risk,DR", "a,1,0", "b,1,1", "c,0,0")
    assert read(write(tmp_path, images=ABCDE[:3], labels_csv=table)).classes == ("No DR", "DR")


def test_a_list_without_a_header_is_read(tmp_path):
    table = rows("a.png,0", "b.png,1", "c.png,2", "d.png,3", "e.png,4")
    assert labels(read(write(tmp_path, images=ABCDE, list_csv=table))) == dict(zip("abcde", range(5), strict=True))


def test_a_column_of_patients_is_recognised_and_one_of_splits(tmp_path):
    for name, words in (("split", ("train", "val", "test")), ("Usage", ("Training", "Validation", "Public"))):
        values = [words[0], words[0], words[0], words[1], words[2]]
        table = rows(
            f"image,level,patient_id,{name}", *(f"{n},{k},P{k // 2},{values[k]}" for k, n in enumerate("abcde"))
        )
        source = read(write(tmp_path / name, images=ABCDE, labels_csv=table))
        assert source.table["source_split"].tolist() == ["train"] * 3 + ["val", "test"]
        assert source.table["patient"].tolist() == ["P0", "P0", "P1", "P1", "P2"]
        assert source.notes[0] == f"labels.csv: image 'image', label 'level', patient 'patient_id', split {name!r}"


@pytest.mark.parametrize("name", ["fold", "purpose", "Menge"])
def test_a_column_of_nothing_but_splits_is_one_whatever_its_name(tmp_path, name):
    splits = ("train", "Testing", "train", "val", "train")
    table = rows(f"image,level,{name}", *(f"{x},{n // 2},{splits[n]}" for n, x in enumerate("abcde")))
    source = read(write(tmp_path, images=ABCDE, labels_csv=table))
    assert sorted(source.table["source_split"]) == ["test", "train", "train", "train", "val"]
    path = rows(f"image,level,{name}", *(f"{x},{n // 2},{splits[n]}/{x}.png" for n, x in enumerate("abcde")))
    assert read(write(tmp_path, labels_csv=path)).table["source_split"].isna().all()


def test_the_competition_table_may_have_a_column_of_splits(tmp_path):
    table = rows("id_code,diagnosis,split", "a,0,train", "b,1,train", "c,2,train", "d,3,train", "e,4,test")
    source = read(write(tmp_path, images=[f"train/{name}" for name in "abcde"], train_csv=table))
    assert source.table["source_split"].tolist() == ["train"] * 4 + ["test"]


def test_a_value_that_is_no_split_is_refused_with_its_row(tmp_path):
    table = rows("image,level,split", "a,0,train", "b,1,extra", "c,2,test")
    message = "labels.csv, row 3: split is 'extra', expected train, val or test; correct it, or rename the column if"
    assert refusal(write(tmp_path, images=ABCDE, labels_csv=table)).startswith(message)


def test_a_column_of_splits_without_training_is_no_split(tmp_path):
    table = rows("image,level,Usage", *(f"{name},{n},{('Public', 'Private')[n % 2]}" for n, name in enumerate("abcde")))
    source = read(write(tmp_path, images=ABCDE, retinopathy_solution_csv=table))
    assert source.table["source_split"].isna().all()


@pytest.mark.parametrize(
    "names",
    [("a. Training Set", "b. Testing Set"), ("Training_Set", "Evaluation"), ("regular-fundus-training", "Testing"),
     ("my_train_images", "test-images"), ("TRAIN", "TEST")],
)  # fmt: skip
def test_split_tables_and_folders_may_have_any_of_the_usual_names(tmp_path, names):
    for place, name in enumerate(names):
        write(tmp_path, images=[f"img/{name}/{n}" for n in range(5)])
        table = rows("image,level", *(f"{n},{(n + place) % 5}" for n in range(5)))
        (tmp_path / f"X_{name} Labels.csv").write_text(table)
    source = read(tmp_path)
    assert source.table["source_split"].tolist() == ["train"] * 5 + ["test"] * 5
    assert source.table["member"].str.split("/").str[1].tolist() == [names[0]] * 5 + [names[1]] * 5
    assert source.table["diagnosis"].tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4, 0]


def test_names_keep_their_spelling_unless_two_splits_share_them(tmp_path):
    table = rows("image,level,split", "a,0,train", "b,1,train", "c,2,test")
    assert read(write(tmp_path, images=ABCDE, labels_csv=table)).table["original"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("word", ["", "nan", "-1", "5", "ungradable", "NA", "Not gradable"])
def test_images_that_cannot_be_graded_are_left_out_and_listed(tmp_path, word):
    names = [f"photos/{name}" for name in "abcdefg"]
    table = rows("image,level", *(f"{name},{n}" for n, name in enumerate("abcde")), f"f,{word}", "g,2")
    root = write(tmp_path, images=names, labels_csv=table)
    source = read(root)
    assert (source.classes, len(source.table), source.unlabelled) == (GRADES, 6, 0)
    assert source.ungradable.to_dict("records") == [{"original": "f", "label": word, "member": "photos/f.png"}]
    kept = read(root, ungradable="keep")
    assert kept.classes == (*GRADES, "Ungradable")
    assert labels(kept)["f"] == 5
    assert labels(read(root, columns=Columns(label="level")))["g"] == 2


@pytest.mark.parametrize("label", ["-1", "ungradable"])
@pytest.mark.parametrize("grade", ["level", "class"])
def test_a_training_split_without_grades_is_refused(tmp_path, label, grade):
    table = rows(f"image,split,{grade}", f"a,train,{label}", *(f"{x},test,{n}" for n, x in enumerate("bcde")))
    assert refusal(write(tmp_path, images=ABCDE, labels_csv=table)) == (
        f"labels.csv: no training image has a grade in {grade}; add labels"
    )


def test_a_test_table_is_not_trained_on_in_place_of_a_training_table_without_labels(tmp_path):
    write(tmp_path, images=ABCDE, train_csv=rows("image,level", "a,", "b,"))
    write(tmp_path, test_csv=rows("image,level", "c,0", "d,1", "e,2"))
    assert refusal(tmp_path) == "train.csv: level has no labels; name the column of labels with --label_column"
    assert len(read(tmp_path, table="test.csv").table) == 3


@pytest.mark.parametrize("ungradable", ["drop", "keep"])
def test_an_image_with_a_grade_and_an_ungradable_label_is_refused(tmp_path, ungradable):
    table = rows("image,level", "a.png,0", "b,1", "c,2", "a,-1")
    assert refusal(write(tmp_path, images=ABCDE, labels_csv=table), ungradable=ungradable) == (
        "labels.csv, row 5: a has a grade in row 2, but level is '-1' here; keep one"
    )


def test_one_of_two_joined_tables_may_have_no_grades(tmp_path):
    write(tmp_path, images=ABCDE, A_csv=rows("image,grade", "a,ungradable", "b,ungradable"))
    write(tmp_path, B_csv=rows("image,grade", "c,Mild", "d,Severe", "e,PDR"))
    source = read(tmp_path)
    assert (len(source.table), len(source.ungradable)) == (3, 2)


def test_folders_of_ungradable_images_are_no_class(tmp_path):
    for number, folder in enumerate(["0", "1", "2", "3", "4", "Ungradable"]):
        write(tmp_path, images=[f"{folder}/{number}{n}" for n in range(3)])
    source = read(tmp_path)
    assert (source.classes, len(source.table), len(source.ungradable)) == (GRADES, 15, 3)
    kept = read(tmp_path, ungradable="keep")
    assert kept.classes == (*GRADES, "Ungradable")
    assert kept.table["diagnosis"].value_counts().to_dict() == dict.fromkeys(range(6), 3)


def test_tables_of_different_images_are_one_set(tmp_path):
    write(tmp_path, images=[f"A/{n}" for n in "abc"] + [f"B/{n}" for n in "de"])
    write(tmp_path, A_csv=rows("image,level", "a,0", "b,1", "c,2"), B_csv=rows("image,level", "d,3", "e,4"))
    source = read(tmp_path)
    assert len(source.table) == 5
    assert "A.csv, B.csv: read as one table, they name different images" in source.notes
    assert len(read(tmp_path, table="B.csv").table) == 2
    assert refusal(tmp_path, table="C.csv").endswith("not a label table of this source; use one of A.csv, B.csv")


def test_tables_that_cannot_be_joined_are_refused_with_the_reason(tmp_path):
    write(tmp_path, images=ABCDE, A_csv=rows("image,level", "a,0", "b,1", "c,2"))
    write(tmp_path, B_csv=rows("image,diagnosis", "d,3", "e,4"))
    assert len(read(tmp_path).table) == 5
    write(tmp_path, B_csv=rows("image,level", "c,2", "d,3"))
    assert refusal(tmp_path).startswith("A.csv and B.csv share only some of their images; choose one")


def test_a_table_of_few_images_beside_folders_of_grades_is_for_the_user_to_choose(tmp_path):
    for grade in ("0", "1", "2"):
        write(tmp_path, images=[f"{grade}/{grade}{n}" for n in range(5)])
    write(tmp_path, recheck_csv=rows("image,level", "00,2", "11,0"))
    assert refusal(tmp_path) == (
        "recheck.csv names 2 of the 15 images, and its folders are named after grades; use --table recheck.csv, or "
        "--table none for the folders"
    )
    assert len(read(tmp_path, table="none").table) == 15
    assert len(read(tmp_path, table="recheck").table) == 2


def test_a_table_that_only_describes_images_leaves_their_folders_as_classes(tmp_path):
    for grade in ("No DR", "Mild"):
        write(tmp_path, images=[f"{grade}/{grade[0]}{n}" for n in range(3)])
    write(tmp_path, sizes_csv=rows("file,width,height", "N0.png,48,48", "M1.png,48,48"), README_txt="about N0 and M1\n")
    assert read(tmp_path).kind == "class folders"


@pytest.mark.parametrize(
    ("folders", "each", "reason"),
    [
        (("a. Training Set", "b. Testing Set"), 3, "named after splits, not classes"),
        (("Base11", "Base12", "Base13"), 9, "named after hospitals, cameras or visits, not classes"),
        (("Hospital A", "Hospital B"), 9, "named after hospitals, cameras or visits, not classes"),
        (("fundus images", "OCT images"), 9, "named after types of images, not classes"),
        (("regular_fundus", "ultra-widefield"), 9, "named after types of images, not classes"),
        (("left", "right"), 9, "named after eyes, not classes"),
        (tuple(f"patient{n:03d}" for n in range(9)), 4, "named after patients"),
        (tuple(f"P{n}7" for n in range(4)), 2, "named after patients"),
        (tuple(f"{n}" for n in range(100, 130)), 2, "named after patients"),
        (("Smith", "Jones", "Li", "Khan", "Sato", "Diaz", "Ali", "Roy"), 2, "named after patients"),
        (("2019-01-02", "2019-02-03"), 9, "named after dates, not classes"),
    ],
)
def test_folders_that_cannot_be_classes_are_refused_with_the_reason(tmp_path, folders, each, reason):
    write(tmp_path, images=[f"{folder}/{folder}_{n}" for folder in folders for n in range(each)])
    message = refusal(tmp_path)
    assert reason in message
    assert message.endswith("put the images of each class into one folder, or list them with their labels in a table")


@pytest.mark.parametrize(
    "folders", [("stage 1", "stage 2", "stage 3"), ("0", "1", "2"), ("cat", "dog"), ("DR", "No_DR")]
)
def test_folders_that_can_be_classes_are(tmp_path, folders):
    write(tmp_path, images=[f"{folder}/{folder}{n}" for folder in folders for n in range(2)])
    assert len(read(tmp_path).classes) == len(folders)


def test_of_two_roots_of_splits_the_one_used_is_named_with_the_flag_for_the_other(tmp_path):
    for root in ("first", "second/inner"):
        for split in ("train", "val", "test"):
            write(tmp_path, images=[f"{root}/{split}/{grade}/{grade}{split}" for grade in range(5)])
    source = read(tmp_path)
    assert source.notes[:1] == (
        "2 folders hold splits: first is used, 15 images are not; for another use --root second/inner",
    )
    assert source.table["member"].str.startswith("first/").all()
    other = read(tmp_path, root="second/inner")
    assert (len(other.table), other.table["member"].str.startswith("second/").all()) == (15, True)
    assert refusal(tmp_path, root="third").startswith("no images in --root third; use one of its folders, as first/te")


def test_split_folders_of_classes_may_have_any_of_the_usual_names(tmp_path):
    for split in ("Training_Set", "Validation", "Evaluation"):
        write(tmp_path, images=[f"{split}/{grade}/{grade}{split}" for grade in range(5)])
    assert read(tmp_path).table["source_split"].value_counts().to_dict() == {"train": 5, "val": 5, "test": 5}


def test_masks_with_the_names_of_images_are_not_the_images(tmp_path):
    write(tmp_path, images=[*ABCDE, *(f"Hard Exudate Masks/{name}" for name in "abc")])
    write(tmp_path, grades_csv=rows("image,level", *(f"{name},{n}" for n, name in enumerate("abcde"))))
    assert read(tmp_path).table["member"].tolist() == [f"{name}.png" for name in ABCDE]


def test_names_that_differ_in_case_alone_are_matched_where_no_other_is(tmp_path):
    table = rows("image,level", *(f"IMG_{name.upper()},{n}" for n, name in enumerate("abcde")))
    source = read(write(tmp_path, images=[f"img_{name}" for name in "abcde"], labels_csv=table))
    assert source.table["member"].tolist() == [f"img_{name}.png" for name in "abcde"]


def test_a_row_for_each_patient_with_both_eyes_is_a_row_for_each_image(tmp_path):
    table = rows("patient,left_image,right_image,left_grade,right_grade", "1,a,b,0,1", "2,c,d,2,3", "3,e,,4,")
    source = read(write(tmp_path, images=ABCDE, patients_csv=table))
    assert labels(source) == dict(zip("abcde", range(5), strict=True))
    assert source.table["patient"].tolist() == ["1", "1", "2", "2", "3"]
    taken = "image 'left_image or right_image', label 'left_grade or right_grade', patient 'patient'"
    assert source.notes[0] == f"patients.csv: {taken}"


def test_one_table_takes_the_splits_of_its_folders(tmp_path):
    for names in (("a. Training Set", "b. Testing Set"), ("train", "test")):
        root = tmp_path / names[0][0]
        write(root, images=[f"{names[0]}/{n}" for n in "abc"] + [f"{names[1]}/{n}" for n in "de"])
        write(root, labels_csv=rows("image,level", *(f"{name},{n}" for n, name in enumerate("abcde"))))
        source = read(root)
        assert source.table["source_split"].tolist() == ["train"] * 3 + ["test"] * 2
        assert f"splits of the folders {', '.join(sorted(names))}: train, test" in source.notes
    write(root, images=["more/f"])
    write(root, labels_csv=rows("image,level", *(f"{name},{n % 5}" for n, name in enumerate("abcdef"))))
    source = read(root)
    assert source.table["source_split"].isna().all()
    assert "not used as splits, as not every labelled image is in one of them" in source.notes[1]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("Aufteilung", ("Training", "Validierung", "Test")),
        ("cohort", ("train", "dev", "test")),
        ("conjunto", ("entrenamiento", "validaci\u00f3n", "prueba")),
        ("split", ("tr", "va", "te")),
        ("\u96c6", ("\u8bad\u7ec3\u96c6", "\u9a8c\u8bc1\u96c6", "\u6d4b\u8bd5\u96c6")),
    ],
)
def test_a_column_whose_values_are_all_splits_is_one_whatever_its_name(tmp_path, column, values):
    parts = (values[0], values[0], values[0], values[1], values[2])
    table = rows(f"image,level,{column}", *(f"{name},{n},{parts[n]}" for n, name in enumerate("abcde")))
    source = read(write(tmp_path, images=ABCDE, labels_csv=table))
    assert source.table["source_split"].tolist() == ["train"] * 3 + ["val", "test"]


def test_a_column_of_yes_and_no_may_be_a_split(tmp_path):
    table = rows("image,level,is_valid", "a,0,False", "b,1,False", "c,2,False", "d,3,True", "e,4,True")
    assert read(write(tmp_path, images=ABCDE, labels_csv=table)).table["source_split"].tolist()[2:] == [
        "train", "val", "val",
    ]  # fmt: skip
    table = rows("image,level,split", *(f"{name},{n},{n % 3}" for n, name in enumerate("abcde")))
    assert "split is '0', expected train, val or test" in refusal(write(tmp_path, labels_csv=table))


@pytest.mark.parametrize("name", ["path", "original", "label", "patient", "row", "table", "id"])
def test_the_column_of_images_may_have_any_name(tmp_path, name):
    table = rows(f"{name},diagnosis", *(f"photos/{letter}.png,{n}" for n, letter in enumerate("abcde")))
    assert labels(read(write(tmp_path, images=ABCDE, labels_csv=table))) == dict(zip("abcde", range(5), strict=True))


def test_a_number_of_the_row_is_not_taken_for_the_image(tmp_path):
    write(tmp_path, images=[str(n) for n in range(1, 11)])
    table = rows("Nr,Bild,Grad", *(f"{n},{11 - n},{n % 5}" for n in range(1, 11)))
    message = "labels.csv: the columns 'Nr' and 'Bild' name different images; choose one, as --id_column 'Nr'"
    assert refusal(write(tmp_path, labels_csv=table)) == message
    table = rows("Unnamed: 0,image,level", *(f"{n},{11 - n},{n % 5}" for n in range(1, 11)))
    assert labels(read(write(tmp_path, labels_csv=table)))["10"] == 1


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        (("diagnosis", "DR_grade"), "DR_grade"),
        (("Hypertensive retinopathy grade", "DR grade"), "DR grade"),
        (("CDR_grade", "level"), "level"),
        (("ai_dr_grade", "physician grade"), "physician grade"),
        (("DR_SDRG", "DR_ICDR"), "DR_ICDR"),
    ],
)
def test_of_several_columns_that_of_the_grades_of_people_is_taken(tmp_path, columns, taken):
    first = ("E11.3", "E11.9", "E11.3", "Type 2", "E11.3") if columns[0] == "diagnosis" else (4, 3, 2, 1, 0)
    table = rows(f"image,{columns[0]},{columns[1]}", *(f"{name},{first[n]},{n}" for n, name in enumerate("abcde")))
    source = read(write(tmp_path, images=ABCDE, labels_csv=table))
    assert labels(source) == dict(zip("abcde", range(5), strict=True))
    assert f"label {taken!r}" in source.notes[0]


@pytest.mark.parametrize("columns", [("DR_grade", "DR_grade_2"), ("grade", "final_grade"), ("label", "adjudicated")])
def test_grades_of_two_readers_are_for_the_user_to_choose(tmp_path, columns):
    table = rows(f"image,{','.join(columns)}", *(f"{name},{n},{(n + 1) % 5}" for n, name in enumerate("abcde")))
    assert "could each be the label; choose one" in refusal(write(tmp_path, images=ABCDE, labels_csv=table))


def test_a_table_of_words_beside_folders_of_grades_does_not_make_the_classes(tmp_path):
    for grade in ("No DR", "Mild"):
        write(tmp_path, images=[f"{grade}/{grade[0]}{n}" for n in range(4)])
    table = rows("image,operator", *(f"{letter}{n},{('Anna', 'Ben')[n % 2]}" for letter in "NM" for n in range(4)))
    source = read(write(tmp_path, operators_csv=table))
    assert (source.kind, source.classes) == ("class folders", GRADES[:2])


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (("Moorfields", "Aravind"), ("Normal", "DR")),
        (("Moorfields", "Aravind"), ("0", "1", "2")),
        (("P000", "P001", "P002"), ("Mild", "Severe")),
    ],
)
def test_folders_around_folders_of_grades_are_no_classes(tmp_path, outer, inner):
    write(tmp_path, images=[f"{o}/{i}/{o}{i}{n}" for o in outer for i in inner for n in range(4)])
    assert "each hold folders such as" in refusal(tmp_path)


def test_splits_within_the_folders_of_classes_are_kept(tmp_path):
    write(
        tmp_path, images=[f"{c}/{s}/{c}{s}{n}" for c in ("No DR", "Mild") for s in ("train", "test") for n in range(3)]
    )
    assert read(tmp_path).table["source_split"].value_counts().to_dict() == {"train": 6, "test": 6}


def test_each_hospital_may_have_its_table_and_count_from_one(tmp_path):
    for place, hospital in enumerate("AB"):
        write(tmp_path, images=[f"{hospital}/{n}" for n in range(4)])
        (tmp_path / hospital / "labels.csv").write_text(rows("image,level", *(f"{n},{n + place}" for n in range(4))))
    source = read(tmp_path)
    assert source.table.set_index("member")["diagnosis"].to_dict() == {
        f"{hospital}/{n}.png": n + place for place, hospital in enumerate("AB") for n in range(4)
    }


def test_the_order_of_unknown_words_is_reported_for_tables_and_folders(tmp_path):
    words = ["ciężka", "brak", "łagodna"] * 2
    table = rows("image,grade", *(f"{name},{word}" for name, word in zip("abcdef", words, strict=True)))
    tables = read(write(tmp_path / "tables", images=[f"photos/{name}" for name in "abcdef"], labels_csv=table))
    folders = read(write(tmp_path / "folders", images=[f"{word}/{k}" for k, word in enumerate(words)]))
    line = "classes in alphabetical order: brak, ciężka, łagodna; rename them 0_..., 1_... if they are ranks"
    assert line in tables.notes
    assert line in folders.notes


def test_numbers_and_letters_of_grades_are_neither_eyes_nor_patients(tmp_path):
    for root, folders, reason in (
        ("a", ("R0", "R1", "R2", "R3", "R4", "R6"), "'R6'"),
        ("b", "012349", "the class '9'"),
    ):
        write(tmp_path / root, images=[f"{folder}/{folder}_{n}" for folder in folders for n in range(3)])
        assert reason in refusal(tmp_path / root)


def test_of_many_tables_the_first_are_named(tmp_path):
    for place in range(6):
        write(tmp_path, images=[f"P{place}/{place}{n}" for n in range(5)])
        (tmp_path / f"P{place}" / "g.csv").write_text(rows("image,level", *(f"{place}{n},{n}" for n in range(5))))
    assert read(tmp_path).notes[0].startswith("P0/g.csv, P1/g.csv, P2/g.csv and 3 more: image 'image', label 'level'")


def test_numbers_that_lost_their_leading_zeros_are_named_as_that(tmp_path):
    write(tmp_path, images=[f"{n:04d}" for n in range(1, 21)])
    for header in ("image,grade", "image,level"):
        message = refusal(write(tmp_path, labels_csv=rows(header, *(f"{n},{n % 5}" for n in range(1, 21)))))
        assert message.startswith("labels.csv: ")
        assert "lacks the leading zeros of the image 00" in message
        assert "format the column as text" in message
    write(tmp_path, images=[f"{n:02d}" for n in range(8, 13)])
    for n in range(1, 21):
        (tmp_path / f"{n:04d}.png").unlink()
    source = read(write(tmp_path, labels_csv=rows("image,level", *(f"{n},{n % 5}" for n in range(8, 13)))))
    assert source.table["member"].isna().sum() == 2
    assert any("8 lacks the leading zeros of the image 08" in note for note in source.notes)


def test_a_listed_image_that_is_missing_stays_listed_where_folders_are_the_splits(tmp_path):
    write(tmp_path, images=[*(f"train/{n}" for n in "abc"), *(f"test/{n}" for n in "de")])
    source = read(write(tmp_path, labels_csv=rows("image,level", *(f"{n},{k % 5}" for k, n in enumerate("abcdez")))))
    assert source.table["original"][source.table["member"].isna()].tolist() == ["z"]
    assert source.table["source_split"].tolist() == ["train", "train", "train", "test", "test", "train"]


def test_two_splits_of_one_table_may_use_a_name_twice(tmp_path):
    write(tmp_path, images=[f"{split}/{n}" for split in ("train", "test") for n in range(3)])
    values = [f"{n},{n},{split}" for split in ("train", "test") for n in range(3)]
    source = read(write(tmp_path, labels_csv=rows("image,level,split", *values)))
    assert source.table["member"].tolist() == [f"{split}/{n}.png" for split in ("train", "test") for n in range(3)]
    assert source.table["original"].tolist() == [f"{split}_{n}" for split in ("train", "test") for n in range(3)]


def test_case_alone_does_not_make_two_columns_differ(tmp_path):
    table = rows("Bild,Name des Bildes,Grad", *(f"{n},{n.upper()},{k}" for k, n in enumerate("abcde")))
    source = read(write(tmp_path, images=[f"photos/{n.upper()}" for n in "abcde"], labels_csv=table))
    assert source.table.set_index("member")["diagnosis"].to_dict() == {
        f"photos/{n}.png": k for k, n in enumerate("ABCDE")
    }
