"""The data: sources of labelled hands, crops for the classifier, scenes for the detector."""
