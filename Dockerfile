# Every command of the package on processors, as a user without rights:
#   docker build -t anomaly_nb .
#   docker run --rm -v "$PWD:/data" anomaly_nb srcnn_detect load.csv
# EXTRAS chooses what is installed; the base alone is enough for time series: --build-arg EXTRAS=""
FROM python:3.13-slim AS build
ARG EXTRAS="[spectra,audio,images,torch,onnx]"
ARG TORCH="https://download.pytorch.org/whl/cpu"
COPY . /source
RUN python -m venv /venv \
    && case "$EXTRAS" in *torch*) /venv/bin/pip install --no-cache-dir --index-url "$TORCH" torch ;; esac \
    && /venv/bin/pip install --no-cache-dir "/source$EXTRAS"

FROM python:3.13-slim
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH MPLCONFIGDIR=/tmp OMP_NUM_THREADS=1
RUN useradd --create-home judge && mkdir /data && chown judge /data
USER judge
WORKDIR /data
CMD ["srcnn_detect", "--help"]
