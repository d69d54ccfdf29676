"""The optional compiled core: without a compiler the build goes on and the pure Python form is used."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "tailsight_probe._core",
            ["src/tailsight_probe/_core.c"],
            extra_compile_args=["-O2", "-std=c11", "-Wall", "-Wextra", "-Wno-missing-field-initializers"],
            optional=True,
        )
    ]
)
