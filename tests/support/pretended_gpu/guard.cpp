// Two CUDA devices that are not there. Autograd asks the guard of a device for streams, and the hooks whether
// there is one; these say yes and do nothing, so that tensors may claim to be on a GPU in a build for CPUs.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

namespace {
const Device FIRST(DeviceType::CUDA, 0);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  DeviceIndex deviceCount() const noexcept override { return 2; }
  Device exchangeDevice(Device) const override { return FIRST; }
  Device getDevice() const override { return FIRST; }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, FIRST); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, FIRST); }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
} guard;

const bool registered = [] {
  c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(&guard);
  return true;
}();
} // namespace

namespace at {
// torch looks for them by this name.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  DeviceIndex deviceCount() const override { return 2; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  int getNumGPUs() const override { return 2; }
  DeviceIndex current_device() const override { return 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
} // namespace at
