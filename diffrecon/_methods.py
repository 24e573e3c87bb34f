"""The package's own methods and simulations, and where each is: read by `--help` before anything heavy is imported."""

BUILT_IN = {
    "near-field-ptychography": "ptychography:NearFieldPtychography",
    "far-field-ptychography": "ptychography:FarFieldPtychography",
    "tomography": "tomography:Tomography",
    "holography": "holography:HolographyMethod",
    "holotomography": "holotomography:Holotomography",
    "laminography": "laminography:Laminography",
    "k-edge": "kedge:KEdgeSubtraction",
    "azimuthal-integration": "integration:AzimuthalIntegration",
    "diffraction-tomography": "diffraction_tomography:DiffractionTomography",
    "fluorescence-tomography": "fluorescence_tomography:FluorescenceTomography",
    "fluorescence-map": "fluorescence_map:FluorescenceMap",
    "fluorescence-ptychography": "fluorescence_ptychography:FluorescencePtychography",
    "cdi": "cdi:Cdi",
    "ptycho-tomography": "ptychotomography:PtychoTomographic",
    "speckle": "speckle:Speckle",
    "grating": "grating:Grating",
    "edge-illumination": "scanned:EdgeIllumination",
    "analyser": "scanned:Analyser",
    "interferometer": "interferometer:Interferometer",
    "stxm": "stxm:Stxm",
    "saxs-tensor-tomography": "tensor_saxs:TensorSaxs",
}
"""Methods: module of `diffrecon.recipes` and class."""

SIMULATED = {
    "near-field-ptychography": "ptychography",
    "far-field-ptychography": "far_field",
    "tomography": "tomography",
    "laminography": "laminography",
    "dynamic-tomography": "dynamic",
    "holography": "holography",
    "holotomography": "holotomography",
    "k-edge": "kedge",
    "k-edge-tomography": "kedge_tomography",
    "fluorescence-tomography": "fluorescence",
    "fluorescence-map": "fluorescence_map",
    "fluorescence-ptychography": "fluorescence_ptychography",
    "azimuthal-integration": "integration",
    "speckle": "differential_phase",
    "speckle-tomography": "speckle_tomography",
    "grating": "grating",
    "edge-illumination": "edge_illumination",
    "analyser": "analyser",
    "interferometer": "interferometer",
    "stxm": "stxm",
    "diffraction-tomography": "diffraction_tomography",
    "operando-diffraction": "operando_diffraction",
    "cdi": "diffraction",
    "ptycho-tomography": "ptychotomography",
    "saxs-tensor-tomography": "scattering",
}
"""Simulations: module of `diffrecon.simulate`."""


def built_in() -> list[str]:
    """List the package's own methods and those of installed packages."""
    import importlib.metadata

    points = importlib.metadata.entry_points(group="diffrecon.modalities")
    return [*dict.fromkeys([*BUILT_IN, *(point.name for point in points)])]
