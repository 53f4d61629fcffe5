// Run a finished model with ONNX Runtime's C++ API and nothing else.
//
// Usage: run_without_xdet MODEL.onnx PHOTO.ppm [--no-vnni]
//
// PHOTO.ppm is a binary PPM (P6, 8 bit); boxes come out in its pixels. Where the model's metadata say "letterbox", it has any
// size; else exactly the network's: resize it as they say (docs/contract.md, "Pictures"). Build:
//   g++ -std=c++17 -O2 run_without_xdet.cpp -I $ORT/include -L $ORT/lib -lonnxruntime -o run_without_xdet
// or with the CMakeLists.txt beside this file.
//
// --no-vnni is for x86 CPUs without AVX-512 VNNI or AVX-VNNI, whose fast uint8 kernels saturate: it asks ONNX Runtime for
// the exact ones. It costs time where VNNI exists, and means nothing on ARM.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
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

// Where a photograph stands in the network's picture.
struct Place {
  int64_t left, top, width, height;
};

Place letterbox(const Picture& photo, int64_t width, int64_t height) {
  const double scale = std::min(static_cast<double>(height) / static_cast<double>(photo.height),
                                static_cast<double>(width) / static_cast<double>(photo.width));
  const auto inner = [scale](int64_t side) {  // nearbyint: halves go to the even number
    return std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(static_cast<double>(side) * scale)));
  };
  const auto bar = [](int64_t rest) { return static_cast<int64_t>(std::nearbyint(static_cast<double>(rest) / 2 - 0.1)); };
  const int64_t inner_width = inner(photo.width), inner_height = inner(photo.height);
  return {bar(width - inner_width), bar(height - inner_height), inner_width, inner_height};
}

// The two source rows (or columns) of a target row, and the weight of the second, in float32.
struct Neighbours {
  int64_t low, high;
  float weight;
};

Neighbours neighbours(int64_t index, int64_t source, int64_t target) {
  const auto ratio = static_cast<float>(static_cast<double>(source) / static_cast<double>(target));
  const float product = (static_cast<float>(index) + 0.5F) * ratio;
  const float centre = product - 0.5F, floor = std::floor(centre);
  const auto clamp = [source](float x) { return std::clamp<int64_t>(static_cast<int64_t>(x), 0, source - 1); };
  return {clamp(floor), clamp(std::ceil(centre)), centre - floor};
}

// The network's RGB picture: the photograph at its place, bilinear with half-pixel centres, in bars of 114.
std::vector<uint8_t> network_rgb(const Picture& photo, int64_t width, int64_t height, const Place& at) {
  std::vector<uint8_t> rgb(static_cast<size_t>(width * height * 3), 114);
  const auto mix = [](float a, float b, float weight) {
    const float step = (b - a) * weight;
    return a + step;
  };
  for (int64_t y = 0; y < at.height; ++y) {
    const Neighbours row = neighbours(y, photo.height, at.height);
    for (int64_t x = 0; x < at.width; ++x) {
      const Neighbours column = neighbours(x, photo.width, at.width);
      for (int64_t c = 0; c < 3; ++c) {
        const auto pixel = [&](int64_t r, int64_t k) {
          return static_cast<float>(photo.rgb[static_cast<size_t>((r * photo.width + k) * 3 + c)]);
        };
        const float above = mix(pixel(row.low, column.low), pixel(row.low, column.high), column.weight);
        const float below = mix(pixel(row.high, column.low), pixel(row.high, column.high), column.weight);
        rgb[static_cast<size_t>(((at.top + y) * width + at.left + x) * 3 + c)] =
            static_cast<uint8_t>(std::nearbyint(mix(above, below, row.weight)));
      }
    }
  }
  return rgb;
}

// The channels that the network takes: "rgb", "bgr", or "grey" (BT.601 luma in 16 bit fixed point).
std::vector<uint8_t> in_color(const std::vector<uint8_t>& rgb, bool bgr, bool grey) {
  std::vector<uint8_t> pixels;
  for (size_t i = 0; i < rgb.size(); i += 3) {
    if (grey)
      pixels.push_back(static_cast<uint8_t>((19595 * rgb[i] + 38470 * rgb[i + 1] + 7471 * rgb[i + 2] + 32768) >> 16));
    else
      for (size_t c = 0; c < 3; ++c) pixels.push_back(rgb[i + (bgr ? 2 - c : c)]);
  }
  return pixels;
}

void run(const char* model, const char* photo, bool no_vnni) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);  // the two warnings about optional thresholds are expected
  Ort::SessionOptions options;
  if (no_vnni) options.AddConfigEntry("session.x64quantprecision", "1");
  Ort::Session session(env, std::filesystem::path(model).c_str(), options);

  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("xdet", allocator);
  const std::string document = text ? text.get() : "";
  const auto says = [&document](const char* fact) { return document.find(fact) != std::string::npos; };
  const bool boxed = says("\"resize\":\"letterbox\""), grey = says("\"color\":\"grey\""), bgr = says("\"color\":\"bgr\"");

  const Picture picture = read_ppm(photo);
  const auto expected = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // N, H, W, channels
  if (!boxed && (expected.at(1) != picture.height || expected.at(2) != picture.width))
    throw std::runtime_error("the picture is " + std::to_string(picture.width) + " x " + std::to_string(picture.height) +
                             ", the model takes " + std::to_string(expected[2]) + " x " + std::to_string(expected[1]));

  const int64_t height = expected[1], width = expected[2];
  const Place at = boxed ? letterbox(picture, width, height) : Place{0, 0, width, height};
  std::vector<uint8_t> pixels = in_color(network_rgb(picture, width, height, at), bgr, grey);
  const std::array<int64_t, 4> shape{1, height, width, grey ? 1 : 3};
  float score_threshold = 0.5F;  // optional input; a file with frozen thresholds has none
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Ort::Value> inputs;
  inputs.push_back(
      Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape.data(), shape.size()));
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
  const auto back = [](float corner, int64_t whole, int64_t start, int64_t inner, int64_t side) {
    const float inside = (corner * static_cast<float>(whole) - static_cast<float>(start)) / static_cast<float>(inner);
    return std::clamp(inside, 0.0F, 1.0F) * static_cast<float>(side);
  };
  for (int32_t i = 0; i < count; ++i, box += 4) {
    std::printf("%d %.3f ", classes[i], scores[i]);
    for (int k = 0; k < 4; ++k)
      std::printf(" %.1f", k % 2 ? back(box[k], height, at.top, at.height, picture.height)
                                 : back(box[k], width, at.left, at.width, picture.width));
    std::printf("\n");
  }
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
