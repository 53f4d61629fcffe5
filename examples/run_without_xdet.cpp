// Run a finished model with ONNX Runtime's C++ API and nothing else.
//
// Usage: run_without_xdet MODEL.onnx PHOTO.ppm [--no-vnni]
//
// PHOTO.ppm is a binary PPM (P6, 8 bit) of exactly the network's size: resize it as the model's metadata says
// (docs/contract.md, "Resizing"); boxes come out in its pixels. Build:
//   g++ -std=c++17 -O2 run_without_xdet.cpp -I $ORT/include -L $ORT/lib -lonnxruntime -o run_without_xdet
// or with the CMakeLists.txt beside this file.
//
// --no-vnni is for x86 CPUs without AVX-512 VNNI or AVX-VNNI, whose fast uint8 kernels saturate: it asks ONNX Runtime for
// the exact ones. It costs time where VNNI exists, and means nothing on ARM.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

Picture read_ppm(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  Picture picture;
  int maximum = 0;
  file >> magic >> picture.width >> picture.height >> maximum;
  file.get();  // the one white space before the pixels
  if (!file || magic != "P6" || maximum != 255 || picture.width < 1 || picture.height < 1 ||
      picture.width > 65536 || picture.height > 65536)
    throw std::runtime_error(std::string(path) + ": not a binary 8-bit PPM without comments");
  picture.rgb.resize(static_cast<size_t>(picture.width * picture.height * 3));
  file.read(reinterpret_cast<char*>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size()));
  if (!file) throw std::runtime_error(std::string(path) + ": the pixels are cut short");
  return picture;
}

void run(const char* model, const char* photo, bool no_vnni) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);  // the two warnings about optional thresholds are expected
  Ort::SessionOptions options;
  if (no_vnni) options.AddConfigEntry("session.x64quantprecision", "1");
  Ort::Session session(env, std::filesystem::path(model).c_str(), options);

  Picture picture = read_ppm(photo);
  const auto expected = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // N, H, W, 3
  if (expected.at(1) != picture.height || expected.at(2) != picture.width)
    throw std::runtime_error("the picture is " + std::to_string(picture.width) + " x " + std::to_string(picture.height) +
                             ", the model takes " + std::to_string(expected[2]) + " x " + std::to_string(expected[1]));

  const std::array<int64_t, 4> shape{1, picture.height, picture.width, 3};
  float score_threshold = 0.5F;  // optional input; a file with frozen thresholds has none
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Ort::Value> inputs;
  inputs.push_back(
      Ort::Value::CreateTensor<uint8_t>(memory, picture.rgb.data(), picture.rgb.size(), shape.data(), shape.size()));
  std::vector<const char*> input_names{"image"};
  if (session.GetOverridableInitializerCount() > 0) {
    inputs.push_back(Ort::Value::CreateTensor<float>(memory, &score_threshold, 1, nullptr, 0));
    input_names.push_back("score_threshold");
  }
  const std::array<const char*, 4> output_names{"num_detections", "detection_boxes", "detection_scores",
                                                "detection_classes"};
  auto outputs = session.Run(Ort::RunOptions{nullptr}, input_names.data(), inputs.data(), inputs.size(),
                             output_names.data(), output_names.size());

  const int32_t count = outputs[0].GetTensorData<int32_t>()[0];
  const float* box = outputs[1].GetTensorData<float>();
  const float* scores = outputs[2].GetTensorData<float>();
  const int32_t* classes = outputs[3].GetTensorData<int32_t>();
  const auto w = static_cast<float>(picture.width), h = static_cast<float>(picture.height);
  for (int32_t i = 0; i < count; ++i, box += 4)
    std::printf("%d %.3f  %.1f %.1f %.1f %.1f\n", classes[i], scores[i], box[0] * w, box[1] * h, box[2] * w, box[3] * h);
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL.onnx PHOTO.ppm [--no-vnni]\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1], argv[2], argc > 3 && std::string(argv[3]) == "--no-vnni");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
  return 0;
}
