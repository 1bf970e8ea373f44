"""Label tables of public data sets, as they are downloaded, name the grades of their images."""

import pytest
from layouts import LAYOUTS

from dr import GRADES
from dr.prediction.inputs import find_images, ids
from dr.prediction.labels import read_labels
from dr.sources.columns import Columns

TABLES = {
    "eyepacs_2015": "retinopathy_solution.csv",
    "idrid": "B. Disease Grading/2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv",
    "messidor_2": "messidor_data.csv",
    "ddr": "DDR-dataset/DR_grading/test.txt",
    "deepdrid_regular": "regular_fundus_images/regular-fundus-validation/regular-fundus-validation.csv",
    "eyeq": "Label_EyeQ_test.csv",
    "fgadr": "Seg-set/DR_Seg_Grading_Label.csv",
    "brset": "labels_brset.csv",
    "mbrset": "labels_mbrset.csv",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_a_public_dataset_names_the_grades_of_its_images(tmp_path, name):
    layout = LAYOUTS[name](tmp_path)
    _, names = find_images(layout.root)
    id_of = dict(zip(names, ids(names), strict=True))
    found = read_labels(str(layout.root / TABLES[name]), id_of, classes=GRADES, columns=Columns())
    truth = {id_of[path]: image.label for path, image in layout.images.items()}
    ungradable = {id_of[path] for path in layout.ungradable}
    scored = {image: grade for image, grade in found.grades.items() if image in truth}
    assert scored == {image: truth[image] for image in scored}
    assert len(scored) >= 5
    assert not ungradable & set(found.grades.index)
    patients = {id_of[path]: image.patient for path, image in layout.images.items() if image.patient}
    if found.patients is not None:
        assert {patients[image] for image in scored} == set(found.patients[list(scored)])
