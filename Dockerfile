# The runtime that runs the model in browsers, see web/browser_camera.py: files of an npm package.
FROM node:22-slim@sha256:48e4b67d85f87bd551df43704e24d252f56cc5f8e9718841aace50f19948f0f9 AS runtime
WORKDIR /runtime
COPY assets/browser/runtime.json assets/browser/runtime.sh ./
RUN sh runtime.sh

FROM python:3.11-slim@sha256:e41613d42d4891e4930f79523f93f81bbc7632584ec65e36ab055f41a800b41e

# The user has no account, so HOME is /tmp. pip compiles the bytecode of the packages.
ENV HOME=/tmp PORT=8501 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# glibc keeps up to eight heaps per core, half empty after the threads of past visitors, and frees less the larger the
# blocks ever freed. With these, threads share two heaps, and 128 KiB free at a heap's end are returned: mallopt(3).
ENV MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=131072
WORKDIR /app

# A separate layer: packages change less often than the app. The wheels include their libraries: no apt.
COPY requirements.lock requirements-store.lock ./
# With the packages that download a model from a store: docker build --build-arg LOCK=requirements-store.lock
ARG LOCK=requirements.lock
# A fifth of their size is never used here: tests, sources, type stubs, headers, pydeck's Jupyter extension, Arrow's
# network services and duplicate libraries, NumPy's f2py, onnxruntime's tools and C library, two of Streamlit's chart
# types.
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes -r $LOCK \
    && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && find . \( -type d -name tests -o -name '*.p[xy][xdi]' \) -prune -exec rm -rf {} + \
    && rm -rf pyarrow/include pyarrow/src pyarrow/*arrow_flight* pyarrow/_flight* pyarrow/libarrow_s3* \
        pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.* pydeck/nbextension ../../../share/jupyter numpy/f2py \
        onnxruntime/capi/libonnxruntime.so* onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
        streamlit/static/static/js/PlotlyChart.* streamlit/static/static/js/DeckGlJsonChart.*

COPY .streamlit .streamlit
COPY assets assets
COPY --from=runtime /runtime/onnxruntime assets/browser/onnxruntime
COPY handful handful
COPY model model
COPY web web
COPY pages pages
COPY app.py .

# Hugging Face Spaces runs every container as user 1000.
USER 1000
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD python -c "import http.client, os; c = http.client.HTTPConnection('127.0.0.1:' + os.environ['PORT'], timeout=4); c.request('GET', '/api/health'); assert c.getresponse().status == 200"
# exec: the app itself receives the stop signal.
CMD ["sh", "-c", "exec streamlit run app.py --server.address 0.0.0.0 --server.port $PORT --server.headless true"]
