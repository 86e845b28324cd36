package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/guise-project/guise/guisegrpc"
)

// Files is the service. Its methods are called in scopes of their callers: see guisegrpc.UnaryAsClient.
type Files interface {
	Get(context.Context, *wrapperspb.StringValue) (*wrapperspb.BytesValue, error)
	Create(context.Context, *wrapperspb.StringValue) (*emptypb.Empty, error)
}

// files is the service of a directory. os.Root keeps names inside of it, and keeps out /proc/self, which is the server.
type files struct{ root *os.Root }

// largest is the size of the largest file that is sent, which is in memory meanwhile.
const largest = 1 << 20

func (f files) Get(_ context.Context, name *wrapperspb.StringValue) (*wrapperspb.BytesValue, error) {
	file, err := f.root.OpenFile(name.Value, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait
	if err != nil {
		return nil, failed(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, failed(errors.Join(fmt.Errorf("%s is not an ordinary file: %w", name.Value, os.ErrPermission), err))
	}
	b, err := io.ReadAll(io.LimitReader(file, largest+1))
	if err == nil && len(b) > largest {
		err = status.Errorf(codes.OutOfRange, "%s is longer than %d bytes", name.Value, largest)
	}
	if err != nil {
		return nil, failed(err)
	}
	return wrapperspb.Bytes(b), nil
}

func (f files) Create(_ context.Context, name *wrapperspb.StringValue) (*emptypb.Empty, error) {
	file, err := f.root.OpenFile(name.Value, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, failed(err)
	}
	return new(emptypb.Empty), failed(file.Close())
}

func failed(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(guisegrpc.Code(err), err.Error())
}

const service = "guise.example.Files"

// description is what protoc-gen-go-grpc writes for
//
//	service Files {
//	  rpc Get(google.protobuf.StringValue) returns (google.protobuf.BytesValue);
//	  rpc Create(google.protobuf.StringValue) returns (google.protobuf.Empty);
//	}
//
// by hand, so that this takes no protoc.
var description = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*Files)(nil),
	Methods: []grpc.MethodDesc{
		method("Get", func(ctx context.Context, f Files, r *wrapperspb.StringValue) (any, error) { return f.Get(ctx, r) }),
		method("Create", func(ctx context.Context, f Files, r *wrapperspb.StringValue) (any, error) { return f.Create(ctx, r) }),
	},
}

func method(name string, call func(context.Context, Files, *wrapperspb.StringValue) (any, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(server any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		request := new(wrapperspb.StringValue)
		if err := decode(request); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, request any) (any, error) {
			return call(ctx, server.(Files), request.(*wrapperspb.StringValue))
		}
		if intercept == nil {
			return handle(ctx, request)
		}
		return intercept(ctx, request, &grpc.UnaryServerInfo{Server: server, FullMethod: "/" + service + "/" + name}, handle)
	}}
}
