# Benchmarks of single layers; `make bench-channel` prints MB/s and ns per message.
$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) -lm

# It counts what is copied.
wrapped := $(foreach f,memcpy memmove __memcpy_chk __memmove_chk,-Wl$(comma)--wrap=$(f))
$(BUILD)/tests/bench/bench_message: ALL_LDFLAGS += $(wrapped)

bench-channel: $(BUILD)/tests/bench/bench_channel
	@$(BUILD)/tests/bench/bench_channel $(ARGS)

# What a message costs in instructions, against tests/bench/instructions.txt; ARGS=--record writes that.
check-instructions: $(BUILD)/tests/bench/bench_message
	@CC="$(CC)" OPT="$(strip $(OPT) $(CFLAGS))" python3 tests/bench/instructions.py $(BUILD)/tests/bench/bench_message \
	  $(if $(BORINGSSL_PREFIX),--no-copies) $(ARGS)

-include $(wildcard $(BUILD)/obj/tests/bench/*.d)
.PHONY: bench-channel check-instructions
