"""Reports about profiles and recorded runs. `report` is the entrance; `document` says what a report is made of."""
